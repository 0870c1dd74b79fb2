"""Rows that a run committed and was killed before it told Dagster: the next run tells it."""

import dagster as dg
import pytest
from answering_endpoint import AnsweringEndpoint
from nightly_study import ASSETS, CALLS, decisions, write_nightly_study
from platform_of_test import Platform

from assets.stage_run import StageRun
from assets.table_results import SNAPSHOT_METADATA
from resources.ledger import Ledger

pytestmark = pytest.mark.slow


def reported_snapshot(platform: Platform, table: str) -> int | None:
    event = platform.instance.get_latest_materialization_event(dg.AssetKey(table))
    if event is None or event.asset_materialization is None:
        return None
    snapshot = event.asset_materialization.metadata[SNAPSHOT_METADATA].value
    assert isinstance(snapshot, int)
    return snapshot


def test_what_was_committed_and_not_reported_is_reported_and_not_made_again(
    platform: Platform, endpoint: AnsweringEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_nightly_study(platform.root / "studies")
    report = StageRun._report

    def killed_before_steering_is_reported(run: StageRun, *given, **named):
        if run.recipe.name == "steering":
            raise RuntimeError("killed after the commit")
        yield from report(run, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(StageRun, "_report", killed_before_steering_is_reported)
        assert not platform.materialize().success
    assert len(endpoint.take_requests()) == CALLS
    ((_, steering),) = (
        item for item in Ledger(platform.lake).states().items() if item[0][0] == "steering"
    )
    assert reported_snapshot(platform, "steering_scores") is None

    before = decisions(platform).height
    assert platform.materialize().success
    assert endpoint.take_requests() == []
    rows = decisions(platform).slice(before)
    assert rows.filter(asset="steering")["decision"].to_list() == ["reused"]
    assert rows["asset"].n_unique() == len(rows)
    for table in ("calibrations", "steered_texts", "steering_scores"):
        assert reported_snapshot(platform, table) == steering.data_snapshot

    # Told once, it is not told again.
    before, n_runs = decisions(platform).height, platform.instance.get_runs_count()
    assert platform.materialize().success
    assert decisions(platform).slice(before)["decision"].to_list() == ["reused"] * ASSETS
    assert platform.instance.get_runs_count() == n_runs + 1
