import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.shared.hash_order import mixed, text_hashes

NAMES = [f"document {i}" for i in range(4000)]


@given(st.lists(st.text(max_size=5), min_size=1, max_size=8), st.integers(0, 99))
def test_an_items_number_depends_on_itself_and_the_salt_alone(texts, seed):
    together = text_hashes(texts, seed, "purpose")
    assert together.tolist() == [text_hashes([text], seed, "purpose")[0] for text in texts]


def test_the_salt_tells_seeds_and_purposes_apart():
    salts = [(0, "a"), (1, "a"), (0, "b"), ("0", "a"), ("0, 'a'",), ()]
    assert len({int(text_hashes(["x"], *salt)[0]) for salt in salts}) == len(salts)


def test_the_numbers_are_the_same_on_every_machine():
    assert int(text_hashes(["x"], 0, "a")[0]) == 4271636904980944642
    # The first output of splitmix64 with seed 0 (the published test vector).
    assert int(mixed(np.uint64(0), 0)) == 0xE220A8397B1DCDAF


@pytest.mark.parametrize("hashes", [text_hashes(NAMES, 3), mixed(text_hashes(NAMES), 11)])
def test_numbers_are_spread_evenly(hashes):
    assert len(set(hashes.tolist())) == len(NAMES)
    counts = np.bincount((hashes >> np.uint64(60)).astype(int), minlength=16)
    # 15 degrees of freedom: above 37.7 with a probability of 0.001.
    assert ((counts - 250) ** 2 / 250).sum() < 37.7
    ones = [int(((hashes >> np.uint64(bit)) & np.uint64(1)).sum()) for bit in range(64)]
    assert min(ones) > 1850 and max(ones) < 2150


def test_neighbouring_numbers_give_unrelated_orders():
    hashes = text_hashes(NAMES)
    orders = [np.argsort(mixed(hashes, feature)).argsort() for feature in range(6)]
    correlations = np.asarray(np.corrcoef(orders))[np.triu_indices(6, 1)]
    assert np.abs(correlations).max() < 0.06


def test_one_new_item_enters_a_draw_seldom_and_puts_out_one_at_most():
    n, changes = 10, []
    for trial in range(1000):
        hashes = mixed(text_hashes(NAMES[:101]), trial)
        before = set(np.argsort(hashes[:100])[:n].tolist())
        after = set(np.argsort(hashes)[:n].tolist())
        assert after - before <= {100} and len(before - after) <= 1
        changes.append(after != before)
    assert np.mean(changes) == pytest.approx(10 / 101, abs=0.03)


def test_numbers_broadcast_and_leave_their_input_alone():
    hashes = text_hashes(NAMES[:3])
    kept = hashes.copy()
    table = mixed(hashes[:, None], np.arange(5))
    assert table.shape == (3, 5) and (hashes == kept).all()
    assert (table[:, 2] == mixed(hashes, 2)).all()
