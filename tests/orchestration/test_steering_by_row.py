"""Steering after a change: only what the change touches goes through the model again."""

from typing import Any

import dagster as dg
import polars as pl
import pytest
from mini_study import MINI_STUDY, write_study
from platform_of_test import Platform

pytestmark = pytest.mark.slow
BASE = {
    "corpus": {"path": "bundled:concepts", "max_documents": 12},
    "fits": [{"method": "pca", "rank": 4}],
    "labels": {**MINI_STUDY["labels"], "max_features": 1},
    "hierarchy": {"n_null_draws": 1, "n_starts": 1},
    "faithfulness": {**MINI_STUDY["faithfulness"], "max_features": 1, "n_documents": 4},
}


def steered(platform: Platform, **steering: Any) -> dict[str, dict[str, int]]:
    """Materializes the study with these steering settings; each table's costs."""
    write_study(platform.root / "studies", **BASE, steering={**MINI_STUDY["steering"], **steering})
    assert platform.materialize().success
    costs = {}
    for table in ("calibrations", "steered_texts"):
        event = platform.instance.get_latest_materialization_event(dg.AssetKey(table))
        assert event is not None and event.asset_materialization is not None
        metadata = event.asset_materialization.metadata
        costs[table] = {
            name: metadata[name].value
            for name in ("forward_tokens", "rows_reused", "rows_computed")
        }
    return costs


def tables(platform: Platform) -> tuple[pl.DataFrame, pl.DataFrame]:
    return (
        platform.lake.query("SELECT * FROM calibrations ORDER BY ALL"),
        platform.lake.query("SELECT * FROM steered_texts ORDER BY ALL"),
    )


def test_a_new_judge_runs_no_forward_and_a_new_target_only_itself(platform: Platform) -> None:
    first = steered(platform)
    assert first["calibrations"]["rows_computed"] == 4
    assert first["calibrations"]["forward_tokens"] > 0
    calibrations, texts = tables(platform)

    judged = steered(platform, judge="json")
    assert set(platform.lake.query("SELECT DISTINCT judge FROM steering_scores")["judge"]) == {
        "json"
    }
    for table, costs in judged.items():
        assert (costs["forward_tokens"], costs["rows_computed"]) == (0, 0), table
        reused = first[table]["rows_computed"] + first[table]["rows_reused"]
        assert costs["rows_reused"] == reused
    assert tables(platform)[0].equals(calibrations) and tables(platform)[1].equals(texts)

    more = steered(platform, judge="json", target_kl_nats=[0.25, 0.5])
    assert (more["calibrations"]["rows_reused"], more["calibrations"]["rows_computed"]) == (4, 4)
    now = tables(platform)[0]
    assert now.filter(target_kl_nats=0.5).equals(calibrations)
    assert tables(platform)[1].filter(pl.col("target_kl_nats") != 0.25).equals(texts)
