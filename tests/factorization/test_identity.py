"""A feature keeps its id over refits; ids of lost features are not used again."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.factorization.comparison_tables import FEATURE_MATCHES
from assets.factorization.identity import PreviousFeatures, assign_identities

PARTITION = {"site": "demo:model@L1.mlp_hidden", "fit": "snmf-k006"}


def unit(rows):
    return torch.nn.functional.normalize(rows, dim=1)


def random_rows(k, seed=0, width=80):
    return unit(torch.randn(k, width, generator=torch.Generator().manual_seed(seed)))


def of_kind(identities, kind):
    return [m for m in identities.matches if m.kind == kind]


def test_a_first_fit_counts_its_features():
    made = assign_identities(None, random_rows(4))
    assert (made.feature_ids, made.next_feature_id) == ([0, 1, 2, 3], 4)
    assert [m.kind for m in made.matches] == ["new"] * 4
    frame = FEATURE_MATCHES.conform(made.frame(), PARTITION)
    assert frame["previous_feature_id"].null_count() == 4


def test_ids_follow_features_through_permutation_and_noise():
    rows = random_rows(12)
    ids = [40, 3, 17, 5, 0, 21, 22, 23, 31, 1, 2, 39]
    order = torch.randperm(12, generator=torch.Generator().manual_seed(5))
    noisy = unit(rows[order] + 0.05 * random_rows(12, seed=9))
    made = assign_identities(PreviousFeatures(rows, ids, 41, snapshot=8), noisy)
    assert made.feature_ids == [ids[i] for i in order]
    assert made.next_feature_id == 41
    assert [m.kind for m in made.matches] == ["kept"] * 12
    assert min(m.cosine for m in made.matches) > 0.95
    assert set(made.frame()["previous_snapshot"]) == {8}


def test_added_features_get_ids_of_their_own_and_removed_ones_are_lost():
    rows = random_rows(6)
    now = torch.cat([rows[[4, 1, 2]], random_rows(2, seed=3)])
    made = assign_identities(PreviousFeatures(rows, list(range(6)), 9), now)
    assert made.feature_ids == [4, 1, 2, 9, 10]
    assert made.next_feature_id == 11
    assert [m.feature_id for m in of_kind(made, "new")] == [9, 10]
    assert [m.previous_feature_id for m in of_kind(made, "lost")] == [0, 3, 5]
    assert all(m.feature_id is None for m in of_kind(made, "lost"))
    assert of_kind(made, "split") == of_kind(made, "merged") == []
    FEATURE_MATCHES.conform(made.frame(), PARTITION)


def test_ids_of_lost_features_are_never_used_again():
    seen, previous = set(), None
    for seed in range(5):
        rows = random_rows(4, seed=seed)
        made = assign_identities(previous, rows)
        assert not seen & set(made.feature_ids)
        seen |= set(made.feature_ids)
        previous = PreviousFeatures(rows, made.feature_ids, made.next_feature_id)
    # The first fit's features come back: they are not known any more, so they are new.
    back = assign_identities(previous, random_rows(4, seed=0))
    assert set(back.feature_ids) == {20, 21, 22, 23}


def test_a_feature_below_the_threshold_is_new():
    rows = random_rows(3)
    across = unit(random_rows(3, seed=7) - (random_rows(3, seed=7) * rows).sum(1, True) * rows)
    for cosine, kept in ((0.75, True), (0.65, False)):
        now = cosine * rows + (1 - cosine**2) ** 0.5 * across
        made = assign_identities(PreviousFeatures(rows, [0, 1, 2], 3), unit(now))
        assert made.feature_ids == ([0, 1, 2] if kept else [3, 4, 5])
    # The opposite direction is another feature.
    opposite = assign_identities(PreviousFeatures(rows, [0, 1, 2], 3), -rows)
    assert opposite.feature_ids == [3, 4, 5]


def test_a_split_feature_is_named_by_its_parts():
    parts = torch.zeros(2, 80)
    parts[0, :5], parts[1, 5:9] = 1.0, 1.0
    parts = unit(parts)
    whole = unit(parts.sum(dim=0, keepdim=True))
    others = random_rows(3, seed=4)
    others[:, :9] = 0
    others = unit(others)
    before = PreviousFeatures(torch.cat([others, whole]), [10, 11, 12, 13], 14, snapshot=2)
    made = assign_identities(before, torch.cat([parts, others]))
    split = of_kind(made, "split")
    assert [(m.feature_id, m.previous_feature_id) for m in split] == [
        (made.feature_ids[0], 13),
        (made.feature_ids[1], 13),
    ]
    assert made.feature_ids[2:] == [10, 11, 12]
    assert of_kind(made, "merged") == []
    # The way back is a merger.
    after = PreviousFeatures(torch.cat([parts, others]), [1, 2, 3, 4, 5], 6)
    back = assign_identities(after, torch.cat([others, whole]))
    merged = of_kind(back, "merged")
    assert {m.previous_feature_id for m in merged} == {1, 2}
    assert {m.feature_id for m in merged} == {back.feature_ids[3]}
    assert of_kind(back, "split") == []
    FEATURE_MATCHES.conform(back.frame(), PARTITION)


def test_near_duplicates_that_are_both_kept_are_no_split():
    rows = random_rows(4)
    twins = torch.cat([rows, unit(rows[:1] + 0.02 * random_rows(1, seed=8))])
    made = assign_identities(PreviousFeatures(twins, [0, 1, 2, 3, 4], 5), twins)
    assert made.feature_ids == [0, 1, 2, 3, 4]
    assert {m.kind for m in made.matches} == {"kept"}


def test_named_features_go_by_their_names():
    rows = random_rows(2)
    before = PreviousFeatures(rows, [5, 6], 7, names=["Monday", "red"])
    swapped = assign_identities(before, rows, names=["red", "Monday"])
    assert swapped.feature_ids == [7, 8]
    same = assign_identities(before, rows[[1, 0]], names=["red", "Monday"])
    assert same.feature_ids == [6, 5]


def test_another_width_keeps_nothing():
    before = PreviousFeatures(random_rows(3, width=10), [0, 1, 2], 3)
    made = assign_identities(before, random_rows(3, width=12))
    assert made.feature_ids == [3, 4, 5]
    assert Counter(m.kind for m in made.matches) == {"new": 3, "lost": 3}


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(0, 10_000),
    st.sampled_from([0.3, 0.5, 0.7]),
)
def test_the_matching_is_the_best_of_all(n_before, n_now, seed, threshold):
    # Two dimensions, so that many pairs are near each other.
    before, now = random_rows(n_before, seed, 2), random_rows(n_now, seed + 1, 2)
    made = assign_identities(
        PreviousFeatures(before, range(n_before), n_before), now, match_threshold=threshold
    )
    cosine = (now @ before.t()).double().numpy()
    usable = np.where(cosine >= threshold, cosine, 0)
    size = max(n_before, n_now)
    square = np.zeros((size, size))
    square[:n_now, :n_before] = usable
    best = max(
        sum(square[i, j] for i, j in enumerate(order)) for order in permutations(range(size))
    )
    kept = of_kind(made, "kept")
    assert sum(m.cosine for m in kept) == pytest.approx(best, abs=1e-6)
    assert len(made.feature_ids) == len(set(made.feature_ids)) == n_now
    counts = Counter(m.kind for m in made.matches)
    assert counts["kept"] + counts["new"] == n_now
    assert counts["kept"] + counts["lost"] == n_before
    assert made.next_feature_id == n_before + counts["new"]
    FEATURE_MATCHES.conform(made.frame(), PARTITION)
