"""One-sided p-values against all choices gone through, and false discoveries over a fit."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, rankdata
from sklearn.metrics import roc_auc_score

from assets.detection import significance
from assets.detection.config import DetectionConfig
from assets.detection.corpus_concepts import corpus_concept_rows
from assets.detection.significance import drawn_p, exact_p, one_sided_p
from assets.shared.false_discovery import with_q_values

CONCEPTS = [f"concept {i % 20}" for i in range(400)]
IDS = [f"document {i}" for i in range(400)]


def test_the_defaults_are_the_papers_five_and_five_sentences() -> None:
    config = DetectionConfig()
    assert (config.n_activating, config.n_neutral) == (5, 5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([2, 4, 1000]), st.sampled_from([1, 4, 7, 8]))
def test_p_is_the_share_of_choices_that_separate_as_well(
    seed: int, n_values: int, n_positive: int
) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, n_values, 9).astype(float)
    found = one_sided_p(scores[:n_positive], scores[n_positive:])
    aurocs = []
    for chosen in combinations(range(9), n_positive):
        is_positive = np.isin(np.arange(9), chosen)
        aurocs.append(roc_auc_score(is_positive, scores))
    as_good = sum(auroc >= aurocs[0] - 1e-9 for auroc in aurocs)
    assert found == pytest.approx(as_good / len(aurocs))


def test_five_against_five_told_apart_perfectly_is_one_in_252() -> None:
    assert one_sided_p(np.arange(5.0) + 5, np.arange(5.0)) == pytest.approx(1 / 252)
    assert one_sided_p(np.arange(5.0), np.arange(5.0) + 5) == pytest.approx(1.0)
    assert one_sided_p(np.ones(5), np.ones(5)) == 1.0
    assert one_sided_p(np.array([]), np.ones(3)) is None


def test_few_positives_among_many_silent_texts_are_no_more_than_they_are() -> None:
    """One of five positives alone above 0: it was one of them with a chance of 5 in 100."""
    positive, negative = np.array([1.0, 0, 0, 0, 0]), np.zeros(95)
    assert one_sided_p(positive, negative) == pytest.approx(0.05)
    limit = mannwhitneyu(positive, negative, alternative="greater", method="asymptotic").pvalue
    assert limit < 1e-4
    both = np.array([1.0, 2.0, 0, 0, 0])
    assert one_sided_p(both, negative) == pytest.approx(5 * 4 / (100 * 99))


def test_drawn_choices_and_the_normal_limit_agree_with_the_exact_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = np.random.default_rng(0)
    ranks = np.rint(2 * rankdata(np.maximum(generator.normal(size=60), 0.5))).astype(int)
    exact = exact_p(ranks, 6)
    assert drawn_p(ranks, 6, seed=1) == pytest.approx(exact, abs=4 * np.sqrt(exact / 9_999))
    assert drawn_p(ranks, 6, seed=1) == drawn_p(ranks, 6, seed=1) != drawn_p(ranks, 6, seed=2)

    positive = np.maximum(generator.normal(0.5, 1, 40).round(1), 0)
    negative = np.maximum(generator.normal(0, 1, 80).round(1), 0)
    exact = one_sided_p(positive, negative)
    monkeypatch.setattr(significance, "MOST_ADDITIONS", 0)
    monkeypatch.setattr(significance, "drawn_p", lambda *_: 0.5)
    assert one_sided_p(positive, negative) == pytest.approx(exact, rel=0.1)
    # Too few above the tie for the limit: drawn.
    assert one_sided_p(np.array([1.0, 0, 0, 0, 0]), np.zeros(95)) == 0.5


def test_scores_that_mean_nothing_are_called_as_often_as_p_says() -> None:
    generator = np.random.default_rng(0)
    p = [one_sided_p(generator.random(10), generator.random(90)) for _ in range(2000)]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.015)


def test_the_concept_chosen_on_one_half_leaves_p_valid_and_q_finds_the_planted() -> None:
    """Of 60 features 20 fire on a concept; the others on nothing. Over 20 corpora."""
    false, found = [], []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        scores = generator.normal(size=(400, 60))
        for feature in range(20):
            scores[np.array(CONCEPTS) == f"concept {feature}", feature] += 2.5
        rows = corpus_concept_rows(scores, IDS, CONCEPTS, DetectionConfig())
        rows = with_q_values(rows, ["source"], p="p_value_texts", q="q_value_texts")
        called = rows["q_value_texts"].to_numpy() <= 0.1
        false.append(called[20:].sum() / max(called.sum(), 1))
        found.append(called[:20].mean())
    assert np.mean(false) <= 0.1
    assert np.mean(found) >= 0.95


def test_each_source_is_a_family_of_its_own() -> None:
    frame = pl.DataFrame(
        {
            "source": ["generated", "corpus", "generated", "corpus"],
            "p_value": [0.01, 0.04, None, 0.02],
        }
    )
    assert with_q_values(frame, ["source"])["q_value"].to_list() == [0.01, 0.04, None, 0.04]
