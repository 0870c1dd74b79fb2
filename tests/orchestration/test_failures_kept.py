"""What went wrong is not forgotten: failed checks, failures beside a stop, features left out."""

from collections.abc import Iterator

import dagster as dg
import pytest
from answering_endpoint import AnsweringEndpoint
from nightly_study import decisions, write_nightly_study
from platform_of_test import Platform

from assets import table_results

pytestmark = pytest.mark.slow


def test_rows_that_fail_a_check_are_made_again_by_the_next_run(
    platform: Platform, endpoint: AnsweringEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_nightly_study(platform.root / "studies")
    check_table = table_results.check_table

    def failing(lake, table, partition, n_rows) -> Iterator[dg.AssetCheckResult]:
        for result in check_table(lake, table, partition, n_rows):
            yield result._replace(passed=False) if table.name == "label_scores" else result

    with monkeypatch.context() as patch:
        patch.setattr(table_results, "check_table", failing)
        assert not platform.materialize().success
    rows = decisions(platform)
    assert rows.filter(asset="labels")["decision"].to_list() == ["computed", "failed"]
    sent = len(endpoint.take_requests())
    assert sent > 0

    before = rows.height
    assert platform.materialize().success
    made = decisions(platform).slice(before).filter(asset="labels", decision="computed")
    assert made["reason"].item().startswith("failed before: asset checks failed: label_scores: ")
    assert made["llm_calls_made"].item() == 0
    assert_features_left_out_say_why(platform)

    before = decisions(platform).height
    assert platform.materialize().success
    assert set(decisions(platform).slice(before)["decision"]) == {"reused"}


def assert_features_left_out_say_why(platform: Platform) -> None:
    """The study takes one feature of four; each stage names its own option."""
    for stage, table in (
        ("labels", "labels"),
        ("detection", "probe_sentences"),
        ("faithfulness", "feature_faithfulness"),
    ):
        reasons = platform.lake.query(f"SELECT reason FROM {table} WHERE reason LIKE 'beyond %'")
        expected = {f"beyond {stage}.max_features=1, strongest first"}
        assert set(reasons["reason"]) <= expected, table
        assert len(reasons) > 0 or stage == "detection", table


def test_a_failure_beside_a_stop_is_a_failure(
    platform: Platform, endpoint: AnsweringEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_nightly_study(platform.root / "studies")

    def broken(*given, **named):
        raise RuntimeError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr("assets.faithfulness.measure.measure_faithfulness", broken)
        result = platform.materialize(llm_calls=2)
    assert not result.success
    rows = decisions(platform)
    assert "over_budget" in rows.filter(asset="labels")["decision"].to_list()
    (failed,) = rows.filter(asset="faithfulness").to_dicts()
    assert failed["decision"] == "failed" and "the disk is gone" in failed["reason"]
    statuses = [run.status for run in platform.instance.get_runs()]
    assert dg.DagsterRunStatus.CANCELED not in statuses
    assert statuses.count(dg.DagsterRunStatus.FAILURE) == 2
