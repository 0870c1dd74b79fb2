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
    bootstrap_auroc,
    concept_statistics,
)


def statistics(positive: list[float], negative: list[float], seed: int = 0) -> ConceptStatistics:
    return concept_statistics(
        np.array(positive, dtype=float),
        np.array(negative, dtype=float),
        n_bootstrap=200,
        confidence=0.95,
        seed=seed,
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


@pytest.mark.parametrize("n_values", [4, 10_000])
def test_bootstrap_is_the_auroc_of_resampled_texts(n_values: int) -> None:
    generator = np.random.default_rng(1)
    positive = generator.integers(0, n_values, 9).astype(float)
    negative = generator.integers(0, n_values, 14).astype(float)
    resamples = bootstrap_auroc(positive, negative, n_bootstrap=50, seed=7)
    # The same draws, spelled out: text i repeated as often as it was drawn.
    again = np.random.default_rng(7)
    times_positive = again.multinomial(9, np.full(9, 1 / 9), size=50)
    times_negative = again.multinomial(14, np.full(14, 1 / 14), size=50)
    for b in range(50):
        p, n = np.repeat(positive, times_positive[b]), np.repeat(negative, times_negative[b])
        expected = roc_auc_score(np.arange(23) < 9, np.concatenate([p, n]))
        assert resamples[b] == pytest.approx(expected, abs=1e-12)


def test_interval_covers_the_true_auroc_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    true_auroc = 0.5 * (1 + math.erf(1.0 / 2))  # P(N(1,1) > N(0,1))
    covered = 0
    for seed in range(150):
        found = statistics(list(generator.normal(1, 1, 30)), list(generator.normal(0, 1, 60)), seed)
        assert found.auroc_low is not None and found.auroc_high is not None
        covered += found.auroc_low <= true_auroc <= found.auroc_high
    assert 0.85 <= covered / 150 <= 1.0


def test_interval_repeats_by_seed() -> None:
    positive, negative = [0.3, 0.5, 0.9, 0.1], [0.2, 0.4, 0.6, 0.05]
    assert statistics(positive, negative) == statistics(positive, negative)
    assert statistics(positive, negative).auroc_low != statistics(positive, negative, 5).auroc_low


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
    assert "s_cd needs means above 0" in found.reasons[0]


def test_what_is_undefined_is_none_not_zero() -> None:
    empty = statistics([], [0.1, 0.2])
    assert (empty.auroc, empty.auroc_low, empty.s_cd, empty.mean_positive) == (None,) * 4
    assert "auroc needs both groups" in empty.reasons[0]
    assert statistics([0.5, 0.5], [0.1, 0.1]).cohens_d is None
    assert statistics([0.5], [0.1, 0.2]).cohens_d is None
    without = concept_statistics(
        np.array([0.5, 0.6]), np.array([0.1]), n_bootstrap=0, confidence=0.9, seed=0
    )
    assert without.auroc == 1.0 and without.auroc_low is None
