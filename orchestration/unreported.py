"""Rows that are in the lake while Dagster does not know: their run was killed in between.

A stage commits its rows with their ledger entry in one snapshot and then reports a materialization
a table. A process that is killed after the commit leaves Dagster with the materialization before,
or none: the UI would show old versions until something changes. The next main run has such rows
reported, without making them again (StageRun.report_unchanged).
"""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from assets.table_results import SNAPSHOT_METADATA
from resources.ledger import Entry

ENDED_BADLY = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
RUNS_AT_A_TIME = 500


def broken_runs(instance: dg.DagsterInstance, entries: Iterable[Entry]) -> set[str]:
    """Of the runs that wrote these rows, those that did not end in success."""
    run_ids = sorted({entry.run_id for entry in entries})
    return {
        run.run_id
        for first in range(0, len(run_ids), RUNS_AT_A_TIME)
        for run in instance.get_runs(
            dg.RunsFilter(run_ids=run_ids[first : first + RUNS_AT_A_TIME], statuses=ENDED_BADLY)
        )
    }


def is_reported(
    instance: dg.DagsterInstance, tables: Iterable[str], partition_key: str, entry: Entry
) -> bool:
    """Whether the newest materialization of each table is of the rows that `entry` tells of."""
    for table in tables:
        newest = instance.fetch_materializations(
            dg.AssetRecordsFilter(dg.AssetKey(table), asset_partitions=[partition_key]), limit=1
        ).records
        event = newest[0].asset_materialization if newest else None
        snapshot = None if event is None else event.metadata.get(SNAPSHOT_METADATA)
        if snapshot is None or snapshot.value != entry.data_snapshot:
            return False
    return True
