"""One commit of the lake: files staged outside the catalog, then one transaction, one snapshot.

In the transaction a partition's old rows are deleted, the staged files registered, rows of other
tables added, and asset, partition, run and fingerprint put into the commit message. Connections,
the lock, trying again and reading are lake.py.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

import duckdb
import polars as pl

from assets.shared.schema import Table
from resources.lake_tables import CATALOG_NAME, LakeError

# Given the snapshot to be, rows to add in it.
Appended: TypeAlias = "Callable[[int], Mapping[Table, pl.DataFrame]]"


@dataclass(frozen=True)
class Commit:
    """Who wrote a snapshot and why: kept in the catalog beside it."""

    asset: str
    partition: str
    run_id: str
    fingerprint: str | None = None

    def __str__(self) -> str:
        return f"{self.asset} {self.partition}"


def stage_file(
    data_folder: Path, table: Table, frame: pl.DataFrame, partition: Mapping[str, str]
) -> Path:
    """A partition's rows in a new Parquet file, where the catalog keeps its own.

    Raises LakeError where it cannot be written; then there is no file.
    """
    parts = [f"{name}={quote(value, safe='')}" for name, value in partition.items()]
    path = data_folder.joinpath("main", table.name, *parts, f"{uuid.uuid4().hex}.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        frame.drop(*partition).write_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        path.unlink(missing_ok=True)
        raise LakeError(
            f"table {table.name}: {path} could not be written ({error}); nothing was "
            "committed. Free space on the disk, then materialize again"
        ) from error
    return path


def commit_files(
    cursor: duckdb.DuckDBPyConnection,
    staged: dict[Table, Path],
    partitions: Mapping[Table, Mapping[str, str]],
    added: Mapping[Table, pl.DataFrame],
    commit: Commit,
) -> None:
    """One transaction: `partitions` deleted, `staged` files registered, `added` rows inserted.

    Empties `staged` once the files belong to the catalog. Raises duckdb.Error.
    """
    cursor.execute("BEGIN")
    try:
        for table, partition in partitions.items():
            condition = " AND ".join(f'"{name}" = ?' for name in partition)
            cursor.execute(
                f'DELETE FROM "{table.name}" WHERE {condition}', list(partition.values())
            )
        for table, path in staged.items():
            cursor.execute(
                "CALL ducklake_add_data_files(?, ?, ?, hive_partitioning => true)",
                [CATALOG_NAME, table.name, str(path)],
            )
        for table, frame in added.items():
            if len(frame):
                _insert(cursor, table, frame)
        cursor.execute(
            f"CALL {CATALOG_NAME}.set_commit_message('featurelake', ?, extra_info => ?)",
            [str(commit), json.dumps(asdict(commit), sort_keys=True)],
        )
    except BaseException:
        with contextlib.suppress(duckdb.Error):
            cursor.execute("ROLLBACK")
        raise
    # From here on the files may be the catalog's: an interrupt must leave them (an orphan file
    # costs space, a missing one the table). Only DuckDB's own refusal hands them back.
    kept = dict(staged)
    staged.clear()
    try:
        cursor.execute("COMMIT")
    except duckdb.Error:
        staged.update(kept)
        with contextlib.suppress(duckdb.Error):
            cursor.execute("ROLLBACK")
        raise


def newest_snapshot(cursor: duckdb.DuckDBPyConnection) -> int:
    row = cursor.execute(
        "SELECT max(snapshot_id) FROM ducklake_snapshots(?)", [CATALOG_NAME]
    ).fetchone()
    assert row is not None
    return int(row[0])


def _insert(cursor: duckdb.DuckDBPyConnection, table: Table, frame: pl.DataFrame) -> None:
    cursor.register("rows_to_add", frame.select(table.column_names).to_arrow())
    try:
        cursor.execute(f'INSERT INTO "{table.name}" BY NAME SELECT * FROM rows_to_add')
    finally:
        cursor.unregister("rows_to_add")
