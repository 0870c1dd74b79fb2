"""Documents as a fit records them: places, hashes, and what counts as changed."""

from __future__ import annotations

import pytest
import torch

from assets.factorization.fit_documents import documents_seen, fit_change, same_rows

ROWS = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
NAMES = ["a"] * 3 + ["b"] * 5 + ["c"] * 4
ALL = torch.ones(12, dtype=torch.bool)


def test_documents_stand_where_their_tokens_do():
    is_fit = ALL.clone()
    is_fit[[0, 4]] = False
    seen = documents_seen(NAMES, is_fit, [ROWS])
    assert seen.drop("rows_hash").rows() == [("a", 0, 3, 2), ("b", 3, 5, 4), ("c", 8, 4, 4)]
    assert seen["rows_hash"].n_unique() == 3


@pytest.mark.parametrize("sizes", [(1,) * 12, (12,), (2, 7, 3), (3, 5, 4)])
def test_hashes_do_not_depend_on_how_rows_are_cut_or_stored(sizes):
    half = ROWS.half()
    whole = documents_seen(NAMES, ALL, [half.float()])
    assert documents_seen(NAMES, ALL, half.split(list(sizes))).equals(whole)


def test_a_hash_changes_with_a_value_and_with_a_concept_and_in_no_other_document():
    before = documents_seen(NAMES, ALL, [ROWS])
    changed = ROWS.clone()
    changed[7, 2] += 1e-6
    after = documents_seen(NAMES, ALL, [changed])
    assert (before["rows_hash"] != after["rows_hash"]).to_list() == [False, True, False]
    labels = [["red"] * 12, ["red"] * 8 + ["blue"] * 4]
    red, mixed = (documents_seen(NAMES, ALL, [ROWS], concepts) for concepts in labels)
    assert (red["rows_hash"] != mixed["rows_hash"]).to_list() == [False, False, True]
    assert (red["rows_hash"] != before["rows_hash"]).all()


def test_the_same_rows_under_two_names_are_two_documents():
    before = documents_seen(NAMES, ALL, [ROWS])
    renamed = documents_seen(["z"] * 3 + NAMES[3:], ALL, [ROWS])
    change = fit_change(before, renamed)
    assert (change.n_changed, change.n_fitted, change.share) == (6, 12, 0.5)
    now, then = same_rows(before, renamed)
    assert now.tolist() == then.tolist() == list(range(3, 12))


def test_rows_are_found_where_they_stood():
    before = documents_seen(NAMES, ALL, [ROWS])
    order = [8, 9, 10, 11, 0, 1, 2]
    moved = documents_seen([NAMES[row] for row in order], ALL[:7], [ROWS[order]])
    now, then = same_rows(before, moved)
    assert (now.tolist(), then.tolist()) == (list(range(7)), order)
    assert fit_change(before, moved).n_changed == 5


def test_scattered_documents_and_missing_rows_say_so():
    with pytest.raises(ValueError, match="document 'a' stand in 2 places"):
        documents_seen(["a", "b", "a"], ALL[:3], [ROWS[:3]])
    with pytest.raises(ValueError, match="11 activation rows found for 12 tokens"):
        documents_seen(NAMES, ALL, [ROWS[:11]])
    with pytest.raises(ValueError, match="13 activation rows found for 12 tokens"):
        documents_seen(NAMES, ALL, [ROWS, ROWS[:1]])
