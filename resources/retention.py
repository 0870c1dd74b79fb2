"""Which versions of the lake are kept, and which files no kept version needs.

A version can be read, and a number in it reproduced, for as long as its snapshot is kept; so this
is the lake's reproducibility policy. A snapshot is kept when any of these holds:

- it was current within the last `keep_days`: one is current until the next is written, so the
  newest one from before then is kept too, and any time since then can be read;
- it is the last one of one of the `keep_runs` newest runs. A run writes a snapshot a partition and
  table group, and only the last has all that the run made;
- it is named in `keep_versions` (those behind a paper, say).

The newest one is always kept. Doing it is maintenance.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import duckdb
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from resources.lake import Lake

METADATA = "__ducklake_metadata_lake"


class Retention(BaseModel):
    """What is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep_days: float = Field(
        default=30.0,
        ge=0,
        description="Versions that were current at any time since then are kept [days]",
    )
    keep_runs: int = Field(
        default=10,
        ge=1,
        description="The last version of each of so many newest runs is kept, of whatever age",
    )
    keep_versions: tuple[int, ...] = Field(
        default=(), description="Versions (snapshot ids) that are always kept"
    )
    safe_hours: float = Field(
        default=48.0,
        ge=1,
        description="Files are removed only when nothing has needed or touched them for so long: "
        "longer than the longest query or capture [hours]",
    )

    def safe_before(self, now: datetime) -> datetime:
        """Files not touched since then may go."""
        return now - timedelta(hours=self.safe_hours)


def versions_to_expire(snapshots: pl.DataFrame, retention: Retention, now: datetime) -> list[int]:
    """Ids of the snapshots that `retention` doesn't keep, ascending.

    `snapshots` has one row a snapshot: snapshot_id, snapshot_time, and the run_id that wrote it,
    NULL where none did (a table made, small files merged), which is never a run's last.
    """
    oldest_time = now - timedelta(days=retention.keep_days)
    newest_first = snapshots.sort("snapshot_id", descending=True)
    current_until = pl.col("snapshot_time").shift(1)
    is_current = current_until.is_null() | (current_until > oldest_time)
    last_of_runs = (
        newest_first.drop_nulls("run_id")
        .unique("run_id", keep="first", maintain_order=True)
        .head(retention.keep_runs)["snapshot_id"]
    )
    kept = {*newest_first.filter(is_current)["snapshot_id"], *last_of_runs}
    return sorted(set(snapshots["snapshot_id"]) - kept - set(retention.keep_versions))


def unneeded_data_files(cursor: duckdb.DuckDBPyConnection, kept: Sequence[int]) -> tuple[int, int]:
    """Number and bytes of the catalog's data files that no version in `kept` reads.

    A file belongs to the versions from its begin_snapshot to before its end_snapshot.
    """
    row = cursor.execute(
        f"""
        SELECT count(*), coalesce(sum(file_size_bytes), 0) FROM (
            SELECT begin_snapshot, end_snapshot, file_size_bytes
            FROM {METADATA}.ducklake_data_file
            UNION ALL
            SELECT begin_snapshot, end_snapshot, file_size_bytes
            FROM {METADATA}.ducklake_delete_file
        ) AS file
        WHERE end_snapshot IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM (SELECT unnest($kept) AS version)
            WHERE version >= begin_snapshot AND version < end_snapshot
        )
        """,
        {"kept": list(kept)},
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def values_in_versions(lake: Lake, table: str, column: str, kept: Sequence[int]) -> set[str]:
    """Every value of a column that some version in `kept` holds.

    Versions between which no file of the table came or went hold the same rows (or more, the
    later one), so only the last of each such stretch is read.
    """
    with_table = lake.query(
        f"""
        SELECT begin_snapshot, end_snapshot FROM (
            SELECT table_id, begin_snapshot, end_snapshot FROM {METADATA}.ducklake_data_file
            UNION ALL
            SELECT table_id, begin_snapshot, end_snapshot FROM {METADATA}.ducklake_delete_file
        ) SEMI JOIN (
            SELECT table_id FROM {METADATA}.ducklake_table WHERE table_name = ?
        ) USING (table_id)
        """,
        [table],
    )
    turns = pl.concat([with_table["begin_snapshot"], with_table["end_snapshot"]]).drop_nulls()
    turns = turns.unique().sort()
    if turns.is_empty():
        return set()
    last_of_stretch: dict[int, int] = {}
    for version in sorted(kept):
        last_of_stretch[int(turns.search_sorted(version, side="right"))] = version
    found: set[str] = set()
    for stretch, version in last_of_stretch.items():
        if stretch:  # before the first turn the table was empty
            sql = f'SELECT DISTINCT "{column}" AS v FROM "{table}" AT (VERSION => {version})'
            found.update(lake.query(sql)["v"].drop_nulls())
    return found
