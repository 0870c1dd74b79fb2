"""Versions of the lake: any table as it was at a snapshot (VERSION) or at a time (TIMESTAMP).

A version is one snapshot, so all tables read at it fit together. A declared table keeps its
columns at every version: those it did not have yet are NULL, those that were called otherwise
have today's names, and before it was made it has no rows. Which versions are
kept is retention's business (maintenance.py).
"""

from __future__ import annotations

from datetime import UTC, datetime

import duckdb

from assets.shared.schema import Column, Table
from resources.lake_tables import LakeError

SNAPSHOTS = "ducklake_snapshots('lake')"


def source_at(
    cursor: duckdb.DuckDBPyConnection,
    table: Table,
    version: int | None = None,
    timestamp: datetime | None = None,
) -> str:
    """What to SELECT from to see `table` at a version or a time; at neither, as it is now.

    Raises LakeError for both at once, for a version that the lake does not hold, for a time before
    the first version it holds, and for a time without a zone.
    """
    if version is None and timestamp is None:
        return f'"{table.name}"'
    if version is not None and timestamp is not None:
        raise LakeError(
            f"table {table.name}: found version {version} and timestamp {timestamp}; give one"
        )
    snapshot = find_version(cursor, version if timestamp is None else timestamp)
    past = f'"{table.name}" AT (VERSION => {snapshot})'
    try:
        found = {row[0] for row in cursor.execute(f"DESCRIBE FROM {past}").fetchall()}
    except duckdb.CatalogException:
        found = set()  # the table was made later
    columns = ", ".join(f'{_as_it_was_called(c, found)} AS "{c.name}"' for c in table.columns)
    return f"(SELECT {columns} FROM {past})" if found else f"(SELECT {columns} WHERE false)"


def _as_it_was_called(column: Column, found: set[str]) -> str:
    name = next((name for name in (column.name, column.formerly) if name in found), None)
    return f"NULL::{column.sql_type}" if name is None else f'"{name}"'


def find_version(cursor: duckdb.DuckDBPyConnection, wanted: int | datetime | None) -> int:
    """The id of a version; of a time, the one that was newest then; of None, the newest.

    Raises LakeError, naming the versions that the lake holds, where there is none such.
    """
    if isinstance(wanted, datetime) and wanted.tzinfo is None:
        raise LakeError(
            f"time {wanted.isoformat()} has no zone; expected one, e.g. {wanted.isoformat()}+00:00"
        )
    if wanted is None:
        condition, values = "true", []
    elif isinstance(wanted, datetime):
        condition, values = "snapshot_time <= ?", [wanted]
    else:
        condition, values = "snapshot_id = ?", [wanted]
    row = cursor.execute(
        f"SELECT max(snapshot_id) FROM {SNAPSHOTS} WHERE {condition}", values
    ).fetchone()
    if row is None or row[0] is None:
        raise LakeError(_not_held(cursor, wanted))
    return int(row[0])


def parse_version(text: str) -> int | datetime:
    """`"12"` as a version, `"2026-11-21 09:30"` (ISO 8601; UTC unless it says otherwise) as a time.

    Raises LakeError for anything else.
    """
    if text.strip().isdecimal():
        return int(text)
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        raise LakeError(
            f"{text!r} is neither a snapshot id (12) nor a time (2026-11-21 09:30, in UTC)"
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _not_held(cursor: duckdb.DuckDBPyConnection, wanted: int | datetime | None) -> str:
    name = f"version {wanted}" if isinstance(wanted, int) else f"version of {wanted}"
    row = cursor.execute(
        f"SELECT count(*), min(snapshot_id), max(snapshot_id), min(snapshot_time) FROM {SNAPSHOTS}"
    ).fetchone()
    assert row is not None
    n, first, last, since = row
    return (
        f"the lake holds no {name}: it was expired (make maintain), or never was. {n} versions "
        f"are held, from {first} (of {since:%Y-%m-%d %H:%M:%S %Z}) to {last}; SELECT * FROM "
        f"{SNAPSHOTS} lists them"
    )
