"""AUROC, its interval, S_CD and Cohen's d against brute force and known cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from assets.detection.concept_statistics import (
    ConceptStatistics,
    auroc_matrix,
    concept_statistics,
)
from assets.shared.small_sample_intervals import auroc_interval, log_ratio_interval, mean_of


def statistics(
    positive: list[float], negative: list[float], confidence: float = 0.95
) -> ConceptStatistics:
    return concept_statistics(
        np.array(positive, dtype=float),
        np.array(negative, dtype=float),
        confidence=confidence,
        seed=0,
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([3, 1000]))
def test_auroc_matrix_equals_scikit_learn_with_ties(seed: int, n_values: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, n_values, size=(40, 6)).astype(float)
    membership = generator.random((40, 4)) < 0.3
    membership[0], membership[1] = True, False
    found = auroc_matrix(scores, membership)
    expected = [[roc_auc_score(membership[:, c], scores[:, j]) for c in range(4)] for j in range(6)]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_auroc_without_one_of_the_groups_is_nan_and_nan_scores_are_refused() -> None:
    membership = np.array([[True, False], [True, False], [True, True]])
    found = auroc_matrix(np.arange(3.0)[:, None], membership)
    assert np.isnan(found[0, 0]) and found[0, 1] == 1.0
    with pytest.raises(ValueError, match="NaN"):
        auroc_matrix(np.array([[np.nan], [1.0], [2.0]]), membership)


@pytest.mark.parametrize(("sizes", "shift"), [((5, 5), 1.0), ((5, 5), 1.53), ((10, 60), 1.0)])
def test_intervals_cover_the_true_auroc_and_s_cd_as_often_as_they_say(
    sizes: tuple[int, int], shift: float
) -> None:
    generator = np.random.default_rng(0)
    true_auroc = 0.5 * (1 + math.erf(shift / 2))  # P(N(shift, 1) > N(0, 1))
    true_s_cd = math.log((shift + 4) / 4)
    covered = []
    for _ in range(600):
        found = statistics(
            list(generator.normal(4 + shift, 1, sizes[0])), list(generator.normal(4, 1, sizes[1]))
        )
        assert found.auroc_low is not None and found.auroc_high is not None
        assert found.s_cd_low is not None and found.s_cd_high is not None and found.s_cd is not None
        assert found.s_cd_low < found.s_cd < found.s_cd_high
        covered.append(
            (
                found.auroc_low <= true_auroc <= found.auroc_high,
                found.s_cd_low <= true_s_cd <= found.s_cd_high,
            )
        )
    share = np.mean(covered, axis=0)
    assert (share >= 0.92).all() and (share <= 0.985).all()


def test_intervals_are_those_of_small_samples_at_the_confidence_asked_for() -> None:
    generator = np.random.default_rng(0)
    positive, negative = generator.normal(2, 0.5, 5), generator.normal(1.5, 0.5, 7)
    found = {c: statistics(list(positive), list(negative), c) for c in (0.8, 0.95)}
    for confidence, one in found.items():
        assert one.auroc is not None
        ends = auroc_interval(one.auroc, 5, 7, confidence)
        assert (one.auroc_low, one.auroc_high) == ends
        ends = log_ratio_interval(mean_of(positive), mean_of(negative), confidence)
        assert (one.s_cd_low, one.s_cd_high) == ends
    narrow, wide = found[0.8], found[0.95]
    for score in ("auroc", "s_cd"):
        outwards = ((wide, "low"), (narrow, "low"), (narrow, "high"), (wide, "high"))
        ends = [getattr(one, f"{score}_{end}") for one, end in outwards]
        assert ends == sorted(set(ends))


def test_perfect_separation_and_means_near_0_have_wide_intervals() -> None:
    found = statistics([0.5, 0.6, 0.7, 0.8, 0.9], [0.1, 0.2, 0.3, 0.05, 0.4])
    assert found.auroc == found.auroc_high == 1.0
    assert found.auroc_low is not None and 0.5 < found.auroc_low < 0.8
    could_be_0 = statistics([0.5, 0.6, 0.7], [0.3, -0.2, 0.1])
    assert could_be_0.s_cd is not None and could_be_0.s_cd_high is None
    assert could_be_0.reasons == ()


def test_s_cd_and_cohens_d_by_hand() -> None:
    found = statistics([0.4, 0.6], [0.2, 0.3])
    assert found.s_cd == pytest.approx(math.log(0.5 / 0.25))
    pooled = math.sqrt((0.02 + 0.005) / 2)
    assert found.cohens_d == pytest.approx(0.25 / pooled)
    assert (found.auroc, found.n_positive, found.n_negative) == (1.0, 2, 2)
    assert found.reasons == ()


@pytest.mark.parametrize(
    ("positive", "negative"),
    [([-0.1, -0.2], [0.3, 0.1]), ([0.3, 0.1], [-0.3, 0.1]), ([0.0], [1.0])],
)
def test_s_cd_is_null_with_a_reason_where_a_mean_is_not_positive(
    positive: list[float], negative: list[float]
) -> None:
    found = statistics(positive, negative)
    assert found.s_cd is None and found.auroc is not None
    assert found.s_cd_low is None and found.s_cd_high is None
    assert "s_cd needs means above 0" in found.reasons[0]


def test_what_is_undefined_is_none_not_zero() -> None:
    empty = statistics([], [0.1, 0.2])
    assert (empty.auroc, empty.auroc_low, empty.s_cd, empty.mean_positive) == (None,) * 4
    assert "auroc needs both groups" in empty.reasons[0]
    assert statistics([0.5, 0.5], [0.1, 0.1]).cohens_d is None
    assert statistics([0.5], [0.1, 0.2]).cohens_d is None
    assert statistics([0.5], [0.1, 0.2]).s_cd_low is None
