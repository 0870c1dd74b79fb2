"""A whole study at an endpoint that fails for 30 % of the calls: less coverage, the same values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from counting_llm import environment_of, kept_answers, number_of
from faulty_llm import FaultyLlm, faulty_llm
from mini_study import MINI_STUDY, write_quick_study
from platform_of_test import Platform
from polars.testing import assert_frame_equal

pytestmark = pytest.mark.slow

# One fit; labels, sentences and ratings of several features.
SMALL = {
    "corpus": MINI_STUDY["corpus"],
    # So sparse that there are documents without a feature, to judge its label by.
    "fits": [MINI_STUDY["fits"][0] | {"coefficient_penalty": 0.3}],
    "labels": {"max_features": 4, "n_held_out": 3},
    "llm": {"model": "fake", "max_retries": 0, "timeout_seconds": 60.0},
}
VALUES = {
    "labels": (["feature_id", "kind"], ["label"]),
    "label_scores": (
        ["feature_id", "kind", "method", "negatives", "is_shuffled"],
        ["auroc", "balanced_accuracy", "judged_label"],
    ),
    # By request too: no feature is asked about by another label than without faults.
    "probe_sentences": (
        ["feature_id", "kind", "sentence_index", "request_hash"],
        ["sentence", "score"],
    ),
}


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyLlm]:
    with faulty_llm() as running:
        for name, value in environment_of(running.endpoint).items():
            monkeypatch.setenv(name, value)
        yield running


def table(platform: Platform, name: str) -> pl.DataFrame:
    return platform.lake.query(f"SELECT * FROM {name}")


def test_completed_rows_are_as_without_faults_and_the_failed_say_why(
    platform: Platform, llm: FaultyLlm, tmp_path: Path
) -> None:
    (tmp_path / "twin").mkdir()
    with dg.DagsterInstance.ephemeral(str(tmp_path / "twin")) as instance:
        twin = Platform(tmp_path / "twin", instance, platform.cache_folder)
        write_quick_study(twin.root / "studies", **SMALL)
        assert twin.materialize().success
        right = {name: table(twin, name) for name in (*VALUES, "llm_calls", "steering_scores")}
    assert set(right["llm_calls"]["status"]) == {"ok"}

    llm.faults = ("500", "503", "429")
    llm.sent.clear()
    write_quick_study(platform.root / "studies", **SMALL)
    assert platform.materialize().success
    calls = table(platform, "llm_calls")
    failed = calls.filter(status="failed")
    assert 0.15 < len(failed) / len(calls) < 0.45
    assert failed["reason"].str.contains("HTTP (500|503|429)").all()
    assert max(llm.sent.values()) == 1

    # What was asked in both runs and answered has the same answer.
    both = calls.filter(status="ok").join(right["llm_calls"], on="request_hash", suffix="_right")
    assert len(both) > 10
    assert both["reply"].to_list() == both["reply_right"].to_list()
    n_compared = {
        name: check_rows(name, table(platform, name), right[name], key, values)
        for name, (key, values) in VALUES.items()
    }
    # A score of a label is whole only where all its contexts were answered.
    assert n_compared["labels"] > 5 and n_compared["probe_sentences"] > 5
    # A text is judged on the label that it is judged on without faults, or not at all.
    check_rows(
        "steering_scores",
        table(platform, "steering_scores"),
        right["steering_scores"],
        ["feature_id", "sign", "target_kl_nats", "text_index", "label_kind"],
        ["score", "concept_rating", "fluency_rating", "label"],
    )
    # So all that was asked is among what is asked without faults.
    assert set(calls["request_hash"]) <= set(right["llm_calls"]["request_hash"])

    # The next night asks only for what got no answer.
    kept, _ = kept_answers(platform.root / "lake"), llm.endpoint.requests.clear()
    llm.faults = ()
    assert platform.materialize().success
    again = Counter(map(number_of, llm.endpoint.requests))
    assert again and not kept & set(again)
    assert max(again.values()) == 1
    assert set(table(platform, "llm_calls")["status"]) == {"ok"}
    for name, (key, values) in VALUES.items():
        columns = [*key, "status", *values]
        now, then = table(platform, name), right[name]
        kept = (frame.select(columns).sort(key) for frame in (now, then))
        assert_frame_equal(*kept, check_exact=True)


def check_rows(
    name: str, found: pl.DataFrame, right: pl.DataFrame, key: list[str], values: list[str]
) -> int:
    """Completed rows as without faults, wherever the same was asked; the others with a reason."""
    joined = found.filter(status="ok").join(
        right.select(key + values), on=key, suffix="_right", nulls_equal=True
    )
    for column in values:
        assert joined[column].to_list() == joined[f"{column}_right"].to_list(), (name, column)
    failed = found.filter(pl.col("status").is_in(["failed", "partial"]))
    assert len(failed), name
    assert failed["reason"].str.len_chars().min() > 0, name
    # Ratings of a text whose other rating failed stay; the value itself is NULL, never 0.
    without = failed.filter(status="failed")[values[0]]
    assert without.null_count() == len(without), name
    return len(joined)
