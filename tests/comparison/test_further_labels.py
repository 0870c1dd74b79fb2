"""Texts judged on two labels: the second's metrics beside the first's, each for itself."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from planted_lineage import PARTITIONS, PlantedLake, rows

from assets.catalogue.definitions import SOURCES
from assets.catalogue.features_query import FEATURES_QUERY
from assets.comparison import overview
from assets.comparison.config import ComparisonConfig
from assets.comparison.feature_significance import significance_rows
from assets.comparison.fits import ComparedFit, compared_fits
from assets.comparison.further_labels import (
    LOGPROB_GAIN,
    POOLED,
    feature_metrics,
    judged_values,
    split_name,
    suffix_of,
    suffixes,
    with_further_labels,
)
from assets.comparison.method_means import method_rows
from assets.comparison.metrics import (
    FEATURE_METRIC_NAMES,
    FEATURE_METRICS,
    METRICS,
    significance_metrics,
)
from assets.comparison.paired_tests import paired_test_rows
from assets.comparison.tables import FEATURE_SIGNIFICANCE, METHOD_COMPARISON, PAIRED_TESTS
from assets.corpus.tables import DOCUMENTS
from assets.steering.feature_tables import JUDGE_FREE_SCORES, STEERING_SUMMARIES
from assets.steering.tables import STEERING_SCORES
from tests.catalogue.test_steering_columns import STUDY
from tests.comparison.planted_fits import NO_ATTEMPTS, NOT_SHUFFLED, PARTITION, features_of
from tests.steering.test_summaries import scores_of, summarized

CONFIG = ComparisonConfig(n_bootstrap=50)
BOTH = ("input", "output")
GAIN = "steering_gain_by_output"
FITS = {"snmf-k008": ("snmf", False), "pca-k008": ("pca", False), "random-k008": ("random", True)}
OUTCOME = pl.DataFrame({"fit": list(FITS), "status": "ok", "reason": [None] * len(FITS)})
NONE = pl.DataFrame()


def summary(fit: str, feature_id: int, kind: str, gain: float) -> dict[str, object]:
    """A row of steering_summaries: the best setting of both signs."""
    named = {"fit": fit, "feature_id": feature_id, "label_kind": kind}
    return {**named, "sign": "either", "pooling": "best_kl", "score": gain + 0.5, "gain": gain}


def judge_free(*kinds: str) -> pl.DataFrame:
    """Rows of judge_free_scores of feature 0 of one fit; the gain is of which row it is."""
    targets = [(kind, target) for kind in kinds for target in (0.25, 0.5)]
    return pl.DataFrame(
        [
            ("snmf-k008", 0, kind, "-" if kind == "output_minus" else "+", target, float(i))
            for i, (kind, target) in enumerate(targets)
        ],
        schema={
            "fit": pl.String,
            "feature_id": pl.Int32,
            "label_kind": pl.String,
            "sign": pl.String,
            "target_kl_nats": pl.Float64,
            LOGPROB_GAIN: pl.Float64,
        },
        orient="row",
    )


def site(judged: tuple[str, ...] = BOTH) -> list[ComparedFit]:
    """By input snmf gains nothing over pca, by output it gains as much as it has places."""
    gains = {"snmf-k008": 1.0, "pca-k008": 0.0, "random-k008": 0.0}
    features = pl.concat(
        [features_of(fit, [i / 16 for i in range(8)], metric="steering_gain") for fit in FITS]
    )
    summaries = pl.DataFrame(
        [
            summary(fit, i, kind, 0.25 if kind == "input" else gain + i / 16)
            for fit, gain in gains.items()
            for i in range(8)
            for kind in BOTH
        ],
        schema_overrides={"feature_id": pl.Int32},
    )
    frame = with_further_labels(features, summaries, judge_free("input", "output"), judged)
    return compared_fits(FITS, frame, OUTCOME)


def compared_rows(fits: list[ComparedFit], attempts: pl.DataFrame = NO_ATTEMPTS) -> pl.DataFrame:
    rows = method_rows(fits, NONE, NONE, NONE, attempts, CONFIG, feature_metrics(BOTH))
    return METHOD_COMPARISON.conform(rows, PARTITION)


def test_a_study_of_one_judged_label_has_the_metrics_that_it_had() -> None:
    assert feature_metrics(("output",)) == feature_metrics(("input",)) == FEATURE_METRICS
    assert suffixes(("output",)) == [""]
    names = [metric.name for metric in feature_metrics(BOTH)]
    assert names[: len(FEATURE_METRICS)] == list(FEATURE_METRIC_NAMES)
    further = names[len(FEATURE_METRICS) :]
    judged = [name for name in FEATURE_METRIC_NAMES if name.startswith("steering_")]
    assert further == [f"{name}_by_output" for name in (*judged, "label_logprob_gain")]
    assert [split_name(name) for name in further] == [
        (name, "output") for name in (*judged, "label_logprob_gain")
    ]
    assert suffixes(("output", "input")) == ["", suffix_of("input")]


def test_a_further_label_is_read_as_the_catalogue_reads_the_first(tmp_path: Path) -> None:
    planted = PlantedLake(tmp_path / "lake", has_ledger=False)
    planted.write("factorization", "fit", planted.fit_frames("cold", None))
    level = {"input": 0.5, "output": 1.0, "output_minus": 1.5}
    scores = pl.concat(
        scores_of(
            lambda sign, target, i, k=kind: level[k] + target / 4 + (i % 2) / 8,
            lambda *_: 0.25,
            n_texts=6,
            kind=kind,
        ).filter(pl.col("sign").is_in(["0", *signs]))
        for kind, signs in (("input", "+-"), ("output", "+"), ("output_minus", "-"))
    )
    written = rows(STEERING_SCORES, *scores.to_dicts())
    planted.write("steering", "fit", {STEERING_SCORES: written})
    pooled = rows(STEERING_SUMMARIES, *summarized(scores).to_dicts())
    planted.write("steering_summaries", "fit", {STEERING_SUMMARIES: pooled})
    gains = [
        {
            "feature_id": 3,
            "sign": sign,
            "target_kl_nats": target,
            "label_kind": kind,
            "label_logprob_gain": level[kind] * target,
        }
        for kind, signs in (("input", "+-"), ("output", "+"), ("output_minus", "-"))
        for sign in signs
        for target in (0.25, 0.5)
    ]
    planted.write("judge_free", "fit", {JUDGE_FREE_SCORES: rows(JUDGE_FREE_SCORES, *gains)})
    planted.lake.ensure_tables([DOCUMENTS, *SOURCES])
    summaries = planted.lake.read(STEERING_SUMMARIES, PARTITIONS["fit"])
    free = planted.lake.read(JUDGE_FREE_SCORES, PARTITIONS["fit"])
    for judged in BOTH:
        parameters = {**PARTITIONS["fit"], **STUDY, "judged_label": judged}
        feature = planted.lake.query(FEATURES_QUERY, parameters).filter(feature_id=3).to_dicts()[0]
        (found,) = judged_values(summaries, free, judged).filter(feature_id=3).to_dicts()
        for name in (*POOLED, LOGPROB_GAIN):
            assert found[name] is not None and found[name] == feature[name], (judged, name)
    outputs = judged_values(summaries, free, "output").row(0, named=True)
    assert outputs["steering_gain_minus"] > outputs["steering_gain_plus"]


def test_the_second_label_has_means_coverage_tests_and_significance_of_its_own() -> None:
    fits = site()
    attempts = pl.DataFrame(
        [("snmf-k008", GAIN, 10, 0), ("snmf-k008", "steering_gain", 8, 0)],
        schema=NO_ATTEMPTS.schema,
        orient="row",
    )
    means = compared_rows(fits, attempts)
    row = means.filter(fit="snmf-k008", metric=GAIN).row(0, named=True)
    assert row["value"] == pytest.approx(1 + 3.5 / 16)
    assert (row["n"], row["n_attempted"], row["coverage"]) == (8, 10, 0.8)
    first = means.filter(fit="snmf-k008", metric="steering_gain").row(0, named=True)
    assert (first["value"], first["coverage"]) == (pytest.approx(3.5 / 16), 1.0)
    lone = means.filter(fit="pca-k008", metric="steering_gain_plus_by_output").row(0, named=True)
    assert lone["status"] == "no_value" and "of the output label says why" in lone["reason"]
    of_label = means.filter(fit="snmf-k008", metric="label_logprob_gain_by_output")
    assert (of_label["value"].item(), of_label["n"].item()) == (3.0, 1)

    metrics = feature_metrics(BOTH)
    tests = paired_test_rows(fits, NOT_SHUFFLED, CONFIG, metrics)
    PAIRED_TESTS.conform(tests, PARTITION)
    better = tests.filter(metric=GAIN, fit_a="snmf-k008", fit_b="pca-k008").row(0, named=True)
    assert (better["n_pairs"], better["median_difference"]) == (8, pytest.approx(1.0))
    assert better["is_significant"]
    equal = tests.filter(metric="steering_gain", fit_a="snmf-k008", fit_b="pca-k008")
    assert equal["status"].item() == "not_applicable"
    significance = significance_rows(fits, CONFIG, metrics)
    FEATURE_SIGNIFICANCE.conform(significance, PARTITION)
    assert set(significance["metric"]) == {metric.name for metric in significance_metrics(metrics)}
    assert "steering_score_by_output" not in set(significance["metric"])
    found = significance.filter(metric=GAIN, fit="snmf-k008")
    assert set(found["p_value"]) == {1 / 9} and set(found["n_controls"]) == {8}


def test_rows_of_the_first_label_are_those_of_a_study_that_judges_on_no_other() -> None:
    alone, both = site(("input",)), site()
    of_both = feature_metrics(BOTH)
    for without, beside in (
        (
            paired_test_rows(alone, NOT_SHUFFLED, CONFIG),
            paired_test_rows(both, NOT_SHUFFLED, CONFIG, of_both),
        ),
        (significance_rows(alone, CONFIG), significance_rows(both, CONFIG, of_both)),
        (
            method_rows(alone, NONE, NONE, NONE, NO_ATTEMPTS, CONFIG),
            method_rows(both, NONE, NONE, NONE, NO_ATTEMPTS, CONFIG, of_both),
        ),
    ):
        known = beside.filter(pl.col("metric").is_in(list(METRICS)))
        assert known.equals(without) and len(beside) > len(without)


def test_people_see_the_second_label_below_the_first_under_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    titles: list[list[str]] = []
    monkeypatch.setattr(
        overview, "interval_panels", lambda panels, title: titles.append(list(panels)) or "![]()"
    )
    rows_of_site = compared_rows(site())
    first, second = overview.method_table(rows_of_site).split("By the output label (…_by_output):")
    assert "_by_output" not in first and "steering_gain" in second
    assert second.count("\n") == 2 + 2 + len(FITS) - 1
    assert "1.22" in second and "1.22" not in first
    plot = overview.method_plot(rows_of_site)
    assert plot is not None and plot.split("\n\n")[1] == "By the output label (…_by_output):"
    # Titles as short as the first label's: they must fit above their panels.
    assert titles == [["steering_gain"], ["steering_score", "steering_gain", "label_logprob_gain"]]
    plain = rows_of_site.filter(pl.col("metric").is_in(list(METRICS)))
    assert overview.method_table(plain) == first.rstrip("\n")
