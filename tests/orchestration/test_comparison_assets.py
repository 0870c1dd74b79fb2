"""The comparison of a site's fits, made by the main job after all of them."""

import polars as pl
import pytest
from platform_of_test import Platform

from assets.comparison.metrics import (
    FEATURE_METRIC_NAMES,
    FEATURE_METRICS,
    METRICS,
    compared_metrics,
    significance_metrics,
)
from assets.comparison.tables import FEATURE_SIGNIFICANCE, METHOD_COMPARISON, PAIRED_TESTS

pytestmark = pytest.mark.slow

FITS = ("snmf-k012", "diff_means", "random-k006", "permuted-k006")
# As many features as the study ablates of each, and every one has both selectivities.
N_ABLATED = {"snmf-k012": 2, "diff_means": 2, "random-k006": 1, "permuted-k006": 1}


def test_every_fit_is_compared_by_every_metric(materialized: Platform) -> None:
    rows = materialized.lake.read(METHOD_COMPARISON)
    assert len(rows) == len(FITS) * len(METRICS) and set(rows["fit"]) == set(FITS)
    assert rows.filter(is_control=True)["fit"].unique().len() == 2
    means = materialized.lake.query(
        "SELECT fit, avg(concept_auroc) AS mean, count(concept_auroc) AS n, count(*) AS n_features "
        "FROM features GROUP BY fit"
    )
    for mean in means.to_dicts():
        row = rows.filter(fit=mean["fit"], metric="concept_auroc").row(0, named=True)
        assert row["value"] == pytest.approx(mean["mean"])
        assert (row["n"], row["n_features"]) == (mean["n"], mean["n_features"])
        assert row["value_low"] <= row["value"] <= row["value_high"]
        assert row["n_attempted"] == row["n_features"]
    figures = rows.filter(metric="explained_variance")
    assert figures["value"].null_count() == 0
    # What each fit took, from the ledger; the embedded LLM is free.
    assert rows.filter(metric="seconds")["cost"].min() > 0  # type: ignore[operator]
    assert set(rows.filter(metric="usd")["cost"]) == {0.0}


def test_coverage_is_of_the_features_that_each_stage_took_up(materialized: Platform) -> None:
    rows = materialized.lake.read(METHOD_COMPARISON)
    of_features = rows.filter(pl.col("metric").is_in(FEATURE_METRIC_NAMES))
    assert (of_features["n"] <= of_features["n_attempted"]).all()
    assert (of_features["n_attempted"] <= of_features["n_features"]).all()
    # Every metric was tried, and some of a part of the features only.
    attempted = of_features.filter(pl.col("n_attempted") > 0)
    assert set(attempted["metric"]) == set(FEATURE_METRIC_NAMES)
    assert (attempted["n_attempted"] < attempted["n_features"]).any()
    steered = materialized.lake.query(
        "SELECT fit, count(DISTINCT feature_id) AS n FROM judge_free_scores GROUP BY fit"
    )
    assert len(steered) == len(FITS)
    for fit, n in steered.iter_rows():
        row = of_features.filter(fit=fit, metric="output_score").row(0, named=True)
        assert row["n_attempted"] == n and row["coverage"] == row["n"] / n


def test_tests_and_significance_are_there_or_say_why_not(materialized: Platform) -> None:
    tests = materialized.lake.read(PAIRED_TESTS)
    of_labels = tests.filter(pairing="shuffled_label")
    of_nulls = tests.filter(pairing="permuted_null")
    assert len(tests) - len(of_labels) - len(of_nulls) == 5 * len(compared_metrics(FEATURE_METRICS))
    for column in ("selectivity", "concept_selectivity"):
        of_null = of_nulls.filter(metric=f"ablation_{column}")
        assert of_null["fit_a"].to_list() == of_null["fit_b"].to_list() == sorted(FITS)
        means = materialized.lake.query(
            f"SELECT fit, avg({column}) FILTER (NOT is_null) AS own, "
            f"avg({column}) FILTER (is_null) AS of_null, count({column}) // 2 AS n "
            "FROM ablation_effects WHERE ablation = 'zero' GROUP BY fit ORDER BY fit"
        )
        assert dict(means.select("fit", "n").iter_rows()) == N_ABLATED
        for test, mean in zip(of_null.to_dicts(), means.to_dicts(), strict=True):
            assert (test["fit_a"], test["n_pairs"]) == (mean["fit"], mean["n"])
            found = (test["mean_a"], test["mean_b"])
            assert found == pytest.approx((mean["own"], mean["of_null"]))
            assert test["status"] == "not_applicable"
            assert f"{mean['n']} pairs of features with a value" in test["reason"]
    # Few features are labelled here, and of them at most half are judged by another's label too.
    assert of_labels["fit_a"].to_list() == of_labels["fit_b"].to_list() == sorted(FITS)
    n_shuffled = materialized.lake.query(
        "SELECT fit, count(auroc) AS n FROM label_scores WHERE is_shuffled AND kind = 'input' "
        "AND method LIKE 'detection%' AND negatives = 'random' GROUP BY fit"
    )
    counted = dict(n_shuffled.iter_rows())
    for test in of_labels.to_dicts():
        assert test["n_pairs"] == counted.get(test["fit_a"], 0)
        assert test["status"] == "not_applicable" and "labels.n_shuffled" in test["reason"]
    assert set(tests["status"]) <= {"ok", "not_applicable"}
    assert tests.filter(status="not_applicable")["reason"].null_count() == 0
    assert tests["q_value"].is_not_null().to_list() == (tests["status"] == "ok").to_list()
    (supervised,) = tests.filter(
        metric="concept_auroc", fit_a="snmf-k012", fit_b="diff_means"
    ).to_dicts()
    # Six pairs: one without a difference leaves too few for that test, not for every one.
    assert "ok" in tests.filter(metric="concept_auroc")["status"].to_list()
    n_shared = materialized.lake.query(
        "SELECT count(*) FROM (SELECT concept FROM features WHERE fit = 'snmf-k012' INTERSECT "
        "SELECT concept FROM features WHERE fit = 'diff_means')"
    ).item()
    # With fewer shared concepts than the six a test needs, features are paired by rank.
    assert (n_shared, supervised["pairing"]) == (5, "strength_rank")
    assert supervised["n_pairs"] == 6
    assert supervised["status"] == "ok" or "differ" in supervised["reason"]

    significance = materialized.lake.read(FEATURE_SIGNIFICANCE)
    n_features = materialized.lake.query(
        "SELECT count(*) FROM features WHERE NOT is_control"
    ).item()
    n_rows = n_features * len(significance_metrics(FEATURE_METRICS))
    # As many for each kind of control as for every.
    counted = dict(significance["control"].value_counts().iter_rows())
    assert counted == {"random": n_rows, "permuted": n_rows, "every": n_rows}
    # 6 features of each kind: too few for a p-value of 5 %, and the rows say so.
    told = significance.filter(metric="concept_auroc")
    assert set(told["n_controls"]) == {6} and set(told["status"]) == {"too_few_controls"}
    assert told["p_value"].min() == pytest.approx(1 / 7)
    assert told["is_significant"].null_count() == len(told)


def test_the_comparison_comes_after_every_fit_and_once(materialized: Platform) -> None:
    ledger = materialized.lake.query(
        "SELECT asset, decision, considered_at FROM run_ledger ORDER BY considered_at"
    )
    comparison = ledger.filter(asset="comparison", decision="computed")
    assert len(comparison) == 1
    of_fits = ledger.filter(asset="catalogue", decision="computed")["considered_at"]
    assert comparison["considered_at"][0] > of_fits.max()
