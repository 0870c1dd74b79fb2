"""A partition's rows in the lake, beside what the ledger says was written there.

Rows can go, or come, behind the ledger's back: anyone may open the lake and delete. A plan and an
asset's guard therefore compare how many there are with how many were written; what is missing is
put back from the version that was written, where the lake still holds it unchanged. Rows edited in
place are not noticed.
"""

import logging
from collections.abc import Mapping, Sequence

import duckdb
import polars as pl

from assets.ledger.equal_rows import content_columns, n_equal_rows
from assets.shared.content_hash import column_versions
from assets.shared.schema import Table
from resources.lake import Lake
from resources.lake_tables import LakeError
from resources.ledger import Entry

logger = logging.getLogger(__name__)


def rows_as_written(
    lake: Lake, entry: Entry, tables: Sequence[Table], partition: Mapping[str, str]
) -> dict[Table, pl.DataFrame] | None:
    """The rows that `entry` tells of, by table, without the partition's columns.

    Read at the oldest version held since they were written; None where that one holds anything but
    what the entry says.
    """
    if entry.data_snapshot is None or set(entry.versions or {}) != {t.name for t in tables}:
        return None
    held = lake.snapshots()["snapshot_id"]
    version = int(held.filter(held >= entry.data_snapshot).min())  # pyright: ignore[reportArgumentType]
    frames: dict[Table, pl.DataFrame] = {}
    for table in tables:
        try:
            rows = lake.read(table, _where(table, partition), version=version)
        except (LakeError, duckdb.Error) as error:
            logger.warning("%s cannot be read as it was written: %s", table.name, error)
            return None
        frames[table] = rows.drop(table.partition_by)
        if column_versions(frames[table], table) != (entry.versions or {})[table.name]:
            return None
    return frames


def n_rows_kept(
    lake: Lake, frames: Mapping[Table, pl.DataFrame], partition: Mapping[str, str]
) -> int | None:
    """How many rows of `frames` the lake holds already; None where that cannot be told."""
    try:
        return sum(
            n_equal_rows(
                lake.read(table, _where(table, partition), columns=content_columns(table)),
                frame,
                table,
            )
            for table, frame in frames.items()
        )
    except (LakeError, duckdb.Error, pl.exceptions.PolarsError) as error:
        logger.warning("rows that stayed as they were cannot be counted: %s", error)
        return None


def _where(table: Table, partition: Mapping[str, str]) -> dict[str, str]:
    return {name: partition[name] for name in table.partition_by}
