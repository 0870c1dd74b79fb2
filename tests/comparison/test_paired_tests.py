"""Fits in pairs: planted differences found, null ones kept, pairing as it says."""

from __future__ import annotations

from itertools import product

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from assets.comparison.config import ComparisonConfig
from assets.comparison.fits import ComparedFit
from assets.comparison.paired_tests import fewest_differences, paired_test_rows, signed_rank_p
from assets.comparison.pairing import paired_values
from tests.comparison.paired_rows import CONFIG, OF_FITS, by_fit, checked_rows
from tests.comparison.planted_fits import NOT_SHUFFLED, planted_fit

THEMES = [f"theme {i}" for i in range(30)]


def of_auroc(fits: list[ComparedFit], config: ComparisonConfig = CONFIG) -> pl.DataFrame:
    return checked_rows(fits, config=config).filter(metric="concept_auroc")


def test_a_planted_difference_is_found_through_the_spread_of_the_concepts() -> None:
    """Concepts differ far more than the fits do: only pairs see it."""
    generator = np.random.default_rng(0)
    hardness = generator.random(30)
    better = planted_fit(
        "snmf-k030", hardness + 0.05 + generator.normal(0, 0.05, 30), concepts=THEMES
    )
    order = generator.permutation(30)
    worse = planted_fit(
        "sae-k030",
        hardness[order] + generator.normal(0, 0.05, 30),
        concepts=[THEMES[i] for i in order],
    )
    row = of_auroc([better, worse]).row(0, named=True)
    assert (row["pairing"], row["n_pairs"], row["is_significant"]) == ("concept", 30, True)
    assert row["difference_low"] > 0
    assert row["difference_low"] <= row["median_difference"] <= row["difference_high"]
    # Without concepts the same scores are matched by strength, which says nothing here.
    blind = [
        planted_fit(fit.key, fit.values("concept_auroc").to_numpy()) for fit in (better, worse)
    ]
    row = of_auroc(blind).row(0, named=True)
    assert (row["pairing"], row["is_significant"]) == ("strength_rank", False)


def test_under_the_null_few_sites_have_any_difference() -> None:
    generator = np.random.default_rng(1)
    called, small = [], []
    for _ in range(60):
        fits = [
            planted_fit(f"fit{i}-k020", generator.random(20), concepts=THEMES[:20])
            for i in range(4)
        ]
        rows = of_auroc(fits, ComparisonConfig(n_bootstrap=0, fdr=0.1))
        assert len(rows) == 6
        called.append(rows["is_significant"].any())
        small.append((rows["p_value"] <= 0.05).mean())
    assert np.mean(called) <= 0.12
    assert np.mean(small) == pytest.approx(0.05, abs=0.025)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_p_is_the_share_of_sign_choices_at_least_as_uneven(seed: int, has_ties: bool) -> None:
    differences = np.random.default_rng(seed).normal(0.4, 1, 8)
    if has_ties:
        differences = np.append(np.rint(differences), [1.0, 0.0, 0.0])
    ranks = rankdata(np.abs(differences))[differences != 0]
    is_above = differences[differences != 0] > 0
    total = ranks.sum()
    sums = np.array([ranks @ np.array(signs) for signs in product((0, 1), repeat=len(ranks))])
    found = abs(ranks[is_above].sum() - total / 2)
    expected = np.mean(np.abs(sums - total / 2) >= found - 1e-9)
    assert signed_rank_p(differences) == pytest.approx(expected)


def test_every_fit_is_compared_with_every_other_and_each_control_once() -> None:
    keys = ["snmf-k010", "pca-k010", "random-k010", "permuted-k010"]
    fits = [planted_fit(k, np.arange(10.0), is_control=k[0] in "rp" and k[1] != "c") for k in keys]
    rows = of_auroc(fits)
    assert rows.select("fit_a", "fit_b").rows() == [
        ("snmf-k010", "pca-k010"),
        ("snmf-k010", "random-k010"),
        ("snmf-k010", "permuted-k010"),
        ("pca-k010", "random-k010"),
        ("pca-k010", "permuted-k010"),
    ]
    assert rows["is_control_b"].to_list() == [False, True, True, True, True]
    assert set(rows["reason"]) == {"every difference is 0"} and rows["p_value"].null_count() == 5


def test_the_pairs_feature_is_the_strongest_of_its_concept_not_the_best() -> None:
    a = planted_fit("a-k004", [0.6, 0.9, None, 0.7], concepts=["x", "x", "y", "y"])
    b = planted_fit("b-k003", [0.8, 0.5, 0.4], concepts=["y", "x", None])
    pairs = paired_values(a, b, "concept_auroc", fewest=2)
    assert (pairs.pairing, pairs.a.tolist(), pairs.b.tolist()) == (
        "concept",
        [0.6, 0.7],
        [0.5, 0.8],
    )
    by_rank = paired_values(a, b, "concept_auroc", fewest=3)
    # The third strongest of a has no value.
    assert by_rank.pairing == "strength_rank"
    assert (by_rank.a.tolist(), by_rank.b.tolist()) == ([0.6, 0.9], [0.8, 0.5])


def test_choosing_by_strength_gives_a_larger_dictionary_no_advantage() -> None:
    """The winner's curse: the best of ten scores without meaning would beat one of them."""
    generator = np.random.default_rng(2)
    large = planted_fit("large-k300", generator.random(300), concepts=THEMES * 10)
    small = planted_fit("small-k030", generator.random(30), concepts=THEMES)
    row = of_auroc([large, small]).row(0, named=True)
    assert row["n_pairs"] == 30 and not row["is_significant"]
    best = (
        large.features.group_by("concept")
        .agg(pl.col("concept_auroc").max())
        .join(small.features, on="concept")
    )
    assert signed_rank_p((best["concept_auroc"] - best["concept_auroc_right"]).to_numpy()) < 1e-4


@pytest.mark.parametrize("fdr", [0.01, 0.05, 0.1, 0.25])
def test_fewer_differences_than_can_be_significant_are_no_test(fdr: float) -> None:
    n = fewest_differences(fdr)
    assert signed_rank_p(np.arange(1.0, n + 1)) <= fdr < signed_rank_p(np.arange(1.0, n))
    fits = [planted_fit("a-k009", np.ones(n - 1)), planted_fit("b-k009", np.zeros(n - 1))]
    row = of_auroc(fits, ComparisonConfig(fdr=fdr)).row(0, named=True)
    assert (row["status"], row["p_value"], row["n_pairs"]) == ("not_applicable", None, n - 1)
    assert f"with {n} or more" in row["reason"] and row["median_difference"] == 1.0
    # Pairs that do not differ are no help: zeros have no sign.
    beside = [np.append(fit.values("concept_auroc").to_numpy(), np.ones(30)) for fit in fits]
    fits = [planted_fit("a-k039", beside[0]), planted_fit("b-k039", beside[1])]
    row = of_auroc(fits, ComparisonConfig(fdr=fdr)).row(0, named=True)
    assert (row["status"], row["p_value"], row["n_pairs"]) == ("not_applicable", None, n + 29)
    assert f"{n - 1} with a difference" in row["reason"]


def test_each_metric_is_a_family_of_its_own() -> None:
    generator = np.random.default_rng(3)
    apart = [planted_fit(f"fit{i}-k010", generator.random(10)) for i in range(4)]
    joined = [
        ComparedFit(
            fit.key,
            fit.method,
            False,
            fit.features.with_columns(
                pl.Series("s_cd", generator.random(10)), label_auroc=pl.col("concept_auroc")
            ),
        )
        for fit in apart
    ]
    rows = paired_test_rows(joined, NOT_SHUFFLED, CONFIG)
    alone = of_auroc(apart)["q_value"].to_list()
    assert rows.filter(metric="concept_auroc")["q_value"].to_list() == alone
    assert rows.filter(OF_FITS, metric="label_auroc")["q_value"].to_list() == alone


def test_easy_tests_against_controls_lend_the_others_nothing() -> None:
    generator = np.random.default_rng(4)
    fits = [planted_fit(f"fit{i}-k020", 1 + generator.random(20)) for i in range(3)]
    controls = [
        planted_fit(f"random-k02{i}", generator.random(20), is_control=True) for i in range(5)
    ]
    beside = of_auroc([*fits, *controls])
    assert beside.filter(is_control_b=True)["is_significant"].all()
    assert beside.filter(is_control_b=False)["q_value"].equals(of_auroc(fits)["q_value"])


def test_a_fit_that_failed_is_named() -> None:
    there = planted_fit("snmf-k010", np.arange(10.0))
    failed = ComparedFit("sae-k010", "sae", False, there.features.clear(), "the fit failed: why")
    row = of_auroc([there, failed]).row(0, named=True)
    assert row["reason"] == "sae-k010: the fit failed: why"


def shuffled_scores(fit: str, scores: np.ndarray) -> pl.DataFrame:
    given = {"fit": [fit] * len(scores), "feature_id": np.arange(len(scores)), "auroc": scores}
    return pl.DataFrame(given).cast({"feature_id": pl.Int32})


def of_labels(fits: list[ComparedFit], *shuffled: pl.DataFrame) -> dict[str, dict]:
    """The tests of labels against shuffled ones, by fit."""
    return by_fit(checked_rows(fits, pl.concat([NOT_SHUFFLED, *shuffled])), "shuffled_label")


def test_labels_that_say_something_score_above_shuffled_ones() -> None:
    generator = np.random.default_rng(5)
    hardness = generator.random(20)
    true = planted_fit("snmf-k040", [*(hardness + 0.3), *[9.0] * 20], metric="label_auroc")
    # Labels without meaning score as another feature's do on the same contexts.
    empty = planted_fit(
        "random-k020",
        hardness + generator.normal(0, 0.1, 20),
        is_control=True,
        metric="label_auroc",
    )
    others = [
        shuffled_scores(fit, hardness + generator.normal(0, 0.1, 20))
        for fit in ("snmf-k040", "random-k020")
    ]
    found = of_labels([true, empty], *others)
    row = found["snmf-k040"]
    # The features that were judged by their own label alone are no pairs.
    assert (row["metric"], row["fit_b"], row["n_pairs"]) == ("label_auroc", "snmf-k040", 20)
    assert row["is_significant"] and row["difference_low"] > 0.2
    assert row["mean_a"] - row["mean_b"] == pytest.approx(0.3, abs=0.08)
    assert not found["random-k020"]["is_significant"] and found["random-k020"]["is_control_b"]
    # The features are matched by id, whatever the order of the rows.
    backwards = [frame.reverse() for frame in others]
    assert of_labels([true, empty], *backwards) == found


def test_labels_are_a_family_apart_and_say_why_there_is_no_test() -> None:
    generator = np.random.default_rng(6)
    fits = [
        planted_fit(f"fit{i}-k012", generator.random(12), metric="label_auroc") for i in range(3)
    ]
    alone = paired_test_rows(fits, NOT_SHUFFLED, CONFIG)
    shuffled = shuffled_scores("fit0-k012", fits[0].values("label_auroc").to_numpy() - 1)
    beside = paired_test_rows(fits, shuffled, CONFIG)
    assert alone.filter(OF_FITS).equals(beside.filter(OF_FITS))
    found = of_labels(fits, shuffled)
    assert found["fit0-k012"]["q_value"] == found["fit0-k012"]["p_value"] == 2 / 2**12
    assert found["fit1-k012"]["status"] == "not_applicable" and found["fit1-k012"]["n_pairs"] == 0
    assert "labels.n_shuffled" in found["fit1-k012"]["reason"]
