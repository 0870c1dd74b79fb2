"""What Dagster is told of the tables of one materialization: rows, versions, figures and checks.

One `MaterializeResult` a table, whether it was just written or its rows were there before. Writing
it, the ledger, and what follows from a broken check are stage_run.py; the checks table_checks.py.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Mapping
from typing import Any

import dagster as dg
import polars as pl

from assets.partition_state import PartitionState
from assets.recipe import lake_partition
from assets.shared.content_hash import data_version
from assets.shared.schema import Table
from assets.table_checks import check_table
from resources.lake import Lake
from resources.ledger import Entry

SNAPSHOT_METADATA = "lake_snapshot"


def table_results(
    frames: Mapping[Table, pl.DataFrame | None],
    entry: Entry,
    metadata: Mapping[str, Mapping[str, Any]],
    *,
    lake: Lake,
    state: PartitionState,
    log: logging.Logger,
    started: float,
) -> Generator[dg.MaterializeResult, None, list[str]]:
    """One result a table; a frame of None stands for rows that were there before.

    `entry` is the ledger's of the rows, `metadata` maps a table's name to what else is shown,
    `started` is the materialization's begin (time.monotonic). Returns the checks that failed, as
    "table: check".
    """
    partition = lake_partition(state.spec)
    broken: list[str] = []
    for table, frame in frames.items():
        where = {name: partition[name] for name in table.partition_by}
        n_rows = lake.count(table, where) if frame is None else len(frame)
        log.info("%s: %d rows in snapshot %s", table.name, n_rows, entry.data_snapshot)
        checks = list(check_table(lake, table, partition, n_rows))
        broken += [
            f"{table.name}: {check.check_name}"
            for check in checks
            if not check.passed and check.severity == dg.AssetCheckSeverity.ERROR
        ]
        yield dg.MaterializeResult(
            asset_key=table.name,
            data_version=dg.DataVersion(data_version((entry.versions or {})[table.name])),
            metadata={
                "dagster/row_count": lake.count(table),
                "dagster/partition_row_count": n_rows,
                SNAPSHOT_METADATA: entry.data_snapshot,
                "fingerprint": state.fingerprint,
                "reason": state.reason,
                "reused": frame is None,
                "seconds": round(time.monotonic() - started, 3),
                **({} if frame is None else _status_counts(frame)),
                **metadata.get(table.name, {}),
            },
            check_results=checks,
        )
    return broken


def _status_counts(frame: pl.DataFrame) -> dict[str, int]:
    if "status" not in frame.columns:
        return {}
    counts = frame["status"].value_counts()
    return {f"n_{status}": count for status, count in sorted(counts.iter_rows())}
