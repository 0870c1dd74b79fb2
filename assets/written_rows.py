"""A partition's rows in the lake, beside what the ledger says was written there.

Rows can go, or come, behind the ledger's back: anyone may open the lake and delete. A plan and an
asset's guard therefore compare how many there are with how many were written; what is missing is
put back from the version that was written, where the lake still holds it unchanged. Rows edited in
place are not noticed.
"""

from collections.abc import Mapping, Sequence

import duckdb
import polars as pl

from assets.ledger.equal_rows import content_columns, n_equal_rows
from assets.shared.content_hash import column_versions
from assets.shared.schema import Table
from resources.lake import Lake
from resources.lake_tables import LakeError
from resources.ledger import Entry


def rows_as_written(
    lake: Lake, entry: Entry, tables: Sequence[Table], partition: Mapping[str, str]
) -> dict[Table, pl.DataFrame] | None:
    """The rows that `entry` tells of, by table, without the partition's columns.

    Read at the version that holds them; None where that version is kept no longer, or where what
    it holds is not what the entry says.
    """
    if entry.data_snapshot is None or set(entry.versions or {}) != {t.name for t in tables}:
        return None
    frames: dict[Table, pl.DataFrame] = {}
    for table in tables:
        try:
            rows = lake.read(table, _where(table, partition), version=entry.data_snapshot)
        except (LakeError, duckdb.Error):
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
    except (LakeError, duckdb.Error, pl.exceptions.PolarsError):
        return None


def _where(table: Table, partition: Mapping[str, str]) -> dict[str, str]:
    return {name: partition[name] for name in table.partition_by}
