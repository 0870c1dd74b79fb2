"""Texts judged on two labels, from the judge to the comparison and the chain behind a score."""

from collections.abc import Iterator

import polars as pl
import pytest
from counting_llm import counting_llm, environment_of
from mini_study import MINI_STUDY
from platform_of_test import Platform
from tiny_study import HIDDEN, write_tiny_study

from assets.catalogue.tables import FEATURES
from assets.comparison.tables import FEATURE_SIGNIFICANCE, METHOD_COMPARISON, PAIRED_TESTS
from assets.shared.schema import Table
from assets.steering.feature_tables import JUDGE_FREE_SCORES, STEERING_SUMMARIES
from assets.steering.tables import STEERING_SCORES
from orchestration.show_why import why

FITS = ("snmf-k004", "permuted-k004")
GAIN = "steering_gain_by_output"


@pytest.fixture
def judged(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """A lake whose texts were judged on input and output labels."""
    write_tiny_study(
        platform.root,
        "llama",
        kinds=["mlp_hidden"],
        fits=[{"method": fit.partition("-")[0], "rank": 4, **HIDDEN} for fit in FITS],
        llm={"model": "fake"},
        labels=MINI_STUDY["labels"] | {"kinds": ["input", "output", "output_minus"]},
        steering={
            "judged_labels": ["input", "output"],
            "max_features": 3,
            "max_features_controls": 2,
            "target_kl_nats": [0.0005, 0.001],
            "n_texts": 2,
        },
    )
    with counting_llm() as endpoint:
        for name, value in environment_of(endpoint).items():
            monkeypatch.setenv(name, value)
        result = platform.materialize()
    failures = [
        event.step_failure_data.error.message
        for event in result.all_events
        if event.is_step_failure and event.step_failure_data.error
    ]
    assert result.success, failures
    yield platform


def stored(platform: Platform, table: Table) -> pl.DataFrame:
    return platform.lake.read(table).sort(table.key)


@pytest.mark.slow
def test_each_label_has_scores_means_tests_and_a_chain_of_its_own(judged: Platform) -> None:
    free, scores = stored(judged, JUDGE_FREE_SCORES), stored(judged, STEERING_SCORES)
    # Without a judge, too, texts of a sign are scored on the labels that it is asked about.
    key = ["site", "fit", "feature_id", "sign", "target_kl_nats", "label_kind"]
    asked = scores.filter(pl.col("sign") != "0").unique(key).select(*key, "label").sort(key)
    assert free.select(*key, "label").sort(key).equals(asked)
    of_sign = set(free.select("sign", "label_kind").unique().iter_rows())
    assert of_sign == {("+", "input"), ("-", "input"), ("+", "output"), ("-", "output_minus")}
    # Of three features two were labelled: the third has rows that say why there is no gain.
    without = free.filter(pl.col("label").is_null())
    assert len(without) and without["label_logprob_gain"].null_count() == len(without)
    assert all("label: not_attempted" in reason for reason in without["reason"])

    summaries, features = stored(judged, STEERING_SUMMARIES), stored(judged, FEATURES)
    compared = stored(judged, METHOD_COMPARISON)
    for fit in FITS:
        best = summaries.filter(
            fit=fit, label_kind="output", sign="either", pooling="best_kl"
        ).drop_nulls("gain")
        row = compared.filter(fit=fit, metric=GAIN).row(0, named=True)
        assert row["value"] == pytest.approx(best["gain"].mean())
        assert row["n"] == row["n_attempted"] == len(best) > 0
        first = compared.filter(fit=fit, metric="steering_gain").row(0, named=True)
        assert first["value"] == pytest.approx(features.filter(fit=fit)["steering_gain"].mean())
    tests = stored(judged, PAIRED_TESTS).filter(metric=GAIN)
    assert (tests["fit_a"].item(), tests["fit_b"].item()) == FITS
    assert len(stored(judged, FEATURE_SIGNIFICANCE).filter(metric=GAIN))

    one = features.filter(fit=FITS[0]).drop_nulls("steering_score").row(0, named=True)
    chain = why(judged.lake, f"{one['site']} | {one['fit']} | {one['feature_id']}")
    steps = [step for step in chain.sources if step.kind == "steering"]
    assert [step.facts["judged_label"] for step in steps] == ["input", "output"]
    for step, kinds in zip(steps, ({"input"}, {"output", "output_minus"}), strict=True):
        rated = [source for source in step.sources if source.kind == "rated_text"]
        assert {source.facts["label_kind"] for source in rated} <= kinds and len(rated) == 2
        assert {source.facts["sign"] for source in rated} == {step.facts["steering_sign"]}
