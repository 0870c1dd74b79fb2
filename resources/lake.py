"""The lake: DuckLake tables (SQL catalog + Parquet) that are written a whole partition at a time.

Stage, then commit. A write first validates every frame against its declaration, then writes one
Parquet file a table outside the catalog, then, in one short locked transaction, deletes the
partition's old rows and registers the new files: one snapshot a materialization, whose commit
message carries asset, partition, run and fingerprint. A failure before the commit leaves the
catalog as it was. What a commit does is lake_commit.py, how a client attaches the lake
lake_attachment.py; columns, types and keys are declared in assets/*/tables.py.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import filelock
import polars as pl

from assets.shared.schema import Table
from resources.lake_attachment import attach_statements
from resources.lake_commit import Appended, Commit, commit_files, newest_snapshot, stage_file
from resources.lake_tables import (
    CATALOG_NAME,
    LakeError,
    create_tables,
    evolve_table,
    stored_columns,
)
from resources.lake_versions import source_at

COMMIT_LOCK_SECONDS = 120.0
COMMIT_ATTEMPTS = 8


class Lake:
    """One lake in a folder: `catalog.sqlite`, `data/` (Parquet), and folders for what it uses.

    Safe for several threads, and for several processes on one machine (commits take a file lock).
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root).resolve()
        self.data_folder = self.root / "data"
        self.shards_folder = self.root / "shards"
        self.llm_cache_folder = self.root / "llm_cache"
        self.scratch_folder = self.root / "scratch"
        self._lock = threading.Lock()
        self._commit_lock = filelock.FileLock(
            self.root / "commit.lock", timeout=COMMIT_LOCK_SECONDS, thread_local=False
        )
        self._database: duckdb.DuckDBPyConnection | None = None
        self._idle: list[duckdb.DuckDBPyConnection] = []
        self._known_tables: set[str] = set()

    def attach_statements(self, *, read_only: bool = False) -> list[str]:
        """SQL that any DuckDB client of this version runs to see the lake as `lake`."""
        return attach_statements(self.root, self.data_folder, read_only=read_only)

    def connect(self) -> duckdb.DuckDBPyConnection:
        """A cursor of this process's one connection to the lake (opened on first use)."""
        with self._lock:
            if self._database is None:
                self._database = self._open()
            cursor = self._database.cursor()
        cursor.execute(f"USE {CATALOG_NAME}")
        return cursor

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor that serves again: `USE` takes as long as a small query. Not after an error."""
        with self._lock:
            cursor = self._idle.pop() if self._idle else None
        cursor = cursor or self.connect()
        database = self._database
        try:
            yield cursor
        except BaseException:
            cursor.close()
            raise
        with self._lock:
            if self._database is database:
                self._idle.append(cursor)
                return
        cursor.close()  # the lake was closed meanwhile

    def _open(self) -> duckdb.DuckDBPyConnection:
        self.data_folder.mkdir(parents=True, exist_ok=True)
        self.scratch_folder.mkdir(exist_ok=True)
        with self._commit_lock:  # two first openings at once would both create the catalog
            database = duckdb.connect()
            try:
                for statement in self.attach_statements():
                    database.execute(statement)
                # Times read the same wherever the machine stands (global: for all cursors).
                database.execute("SET GLOBAL TimeZone = 'UTC'")
                # Who bounds torch's threads (OMP_NUM_THREADS) means these, too.
                if (threads := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():
                    database.execute(f"SET GLOBAL threads = {max(int(threads), 1)}")
                # Small inserts inlined in the catalog would be unseen by plain Parquet readers.
                database.execute(f"CALL {CATALOG_NAME}.set_option('data_inlining_row_limit', 0)")
            except duckdb.Error as error:
                database.close()
                raise LakeError(f"the lake in {self.root} does not open: {error}") from error
        return database

    def close(self) -> None:
        with self._lock:
            for cursor in self._idle:
                cursor.close()
            self._idle.clear()
            if self._database is not None:
                self._database.close()
            self._database = None
            self._known_tables.clear()

    def query(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> pl.DataFrame:
        """Rows of a SELECT over the lake's tables; parameters by position (?) or name ($name)."""
        values = dict(parameters) if isinstance(parameters, Mapping) else list(parameters)
        with self._cursor() as cursor:
            return cursor.execute(sql, values).pl()

    def table_names(self) -> set[str]:
        return set(
            self.query("SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake'")[
                "table_name"
            ]
        )

    def count(self, table: Table, where: Mapping[str, Any] | None = None) -> int:
        """Rows of a table whose columns equal `where`; of all partitions without it."""
        where = where or {}
        condition = " AND ".join(f'"{name}" = ?' for name in where) or "true"
        return int(
            self.query(
                f'SELECT count(*) FROM "{table.name}" WHERE {condition}', list(where.values())
            ).item()
        )

    def snapshot_of(self, table: Table, where: Mapping[str, Any]) -> int | None:
        """Id of the snapshot that wrote the rows whose columns equal `where`; None: no rows."""
        self.ensure_tables([table])
        condition = " AND ".join(f'"{name}" = ?' for name in where) or "true"
        # DuckLake keeps with every row, as a virtual column, the snapshot that wrote it.
        return self.query(
            f'SELECT max(snapshot_id) FROM "{table.name}" WHERE {condition}', list(where.values())
        ).item()

    def read(
        self,
        table: Table,
        where: Mapping[str, Any] | None = None,
        *,
        columns: Sequence[str] | None = None,
        order_by: Sequence[str] | None = None,
        version: int | None = None,
        timestamp: datetime | None = None,
    ) -> pl.DataFrame:
        """Rows of one table whose columns equal `where`, in key order; empty where none are.

        `version` or `timestamp` (with a zone) reads it as it was then; raises LakeError where the
        lake does not hold that version.
        """
        self.ensure_tables([table])
        where = where or {}
        with self._cursor() as cursor:
            source = source_at(cursor, table, version, timestamp)
        condition = " AND ".join(f'"{name}" = ?' for name in where) or "true"
        chosen = ", ".join(f'"{name}"' for name in (columns or table.column_names))
        order = ", ".join(f'"{name}"' for name in (order_by or table.key))
        return self.query(
            f"SELECT {chosen} FROM {source} WHERE {condition} ORDER BY {order}",
            list(where.values()),
        )

    def replace(
        self,
        frames: Mapping[Table, pl.DataFrame],
        partition: Mapping[str, str],
        commit: Commit,
        *,
        appended: Appended | None = None,
    ) -> int:
        """Put each frame in place of its table's `partition`, all in one snapshot; its id.

        `appended(snapshot)` gives rows to add to other tables in that very snapshot.
        Raises SchemaError for a frame that does not fit its declaration, LakeError where files
        cannot be written or the commit keeps failing; either way the lake stays as it was.
        """
        partitions = {
            table: {name: partition[name] for name in table.partition_by} for table in frames
        }
        conformed = {
            table: table.conform(frame, partitions[table]) for table, frame in frames.items()
        }
        self.ensure_tables(list(frames))
        staged: dict[Table, Path] = {}
        try:
            for table, frame in conformed.items():
                if len(frame):
                    staged[table] = stage_file(self.data_folder, table, frame, partitions[table])
            return self._commit(staged, partitions, commit, appended)
        except BaseException:
            for path in staged.values():
                path.unlink(missing_ok=True)
            raise

    def append(self, frames: Mapping[Table, pl.DataFrame], commit: Commit) -> int:
        """Add rows to tables in one snapshot; its id. Keys are the caller's to keep unique."""
        self.ensure_tables(list(frames))
        return self._commit({}, {}, commit, lambda snapshot: frames)

    def _commit(
        self,
        staged: dict[Table, Path],
        partitions: Mapping[Table, Mapping[str, str]],
        commit: Commit,
        appended: Appended | None,
    ) -> int:
        """The new snapshot's id. Empties `staged` once the files belong to the catalog."""
        is_staged = bool(staged)
        for attempt in range(1, COMMIT_ATTEMPTS + 1):
            try:
                # The lock is held until the id is read, so the newest snapshot is this commit's.
                with self.exclusive(), self._cursor() as cursor:
                    # Under the lock no one else commits: the next snapshot is this one.
                    added = appended(newest_snapshot(cursor) + 1) if appended else {}
                    commit_files(cursor, staged, partitions, added, commit)
                    return newest_snapshot(cursor)
            except duckdb.Error as error:
                if is_staged and not staged:
                    raise LakeError(
                        f"{commit} was committed, but its snapshot id could not be read: {error}"
                    ) from error
                is_passing = re.search(r"locked|conflict|busy", str(error), re.IGNORECASE)
                if attempt == COMMIT_ATTEMPTS or not is_passing:
                    raise LakeError(
                        f"commit of {commit} failed after {attempt} attempts: {error}; the lake "
                        "is as it was before"
                    ) from error
                time.sleep(0.05 * 2**attempt)
        raise AssertionError("unreachable")

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock that every commit takes; raises LakeError when it cannot be had."""
        try:
            with self._commit_lock:
                yield
        except filelock.Timeout as error:
            raise LakeError(
                f"another process held {self._commit_lock.lock_file} for {COMMIT_LOCK_SECONDS:.0f} "
                "seconds; if no run is active, remove the file and try again"
            ) from error

    def ensure_tables(self, tables: Sequence[Table]) -> None:
        """Create the tables that are missing, and add columns that a declaration has gained.

        Those that are missing are made in one transaction: one by one takes 15 times as long.
        """
        wanted = [table for table in tables if table.name not in self._known_tables]
        if not wanted:
            return
        with self.exclusive(), self._cursor() as cursor:
            found = stored_columns(cursor)
            create_tables(cursor, [table for table in wanted if table.name not in found])
            for table in wanted:
                if table.name in found:
                    evolve_table(cursor, table, found[table.name])
        self._known_tables |= {table.name for table in wanted}

    def snapshots(self) -> pl.DataFrame:
        """All snapshots: id, time, author, message and the commit's details, newest first."""
        return self.query(
            f"SELECT * FROM ducklake_snapshots('{CATALOG_NAME}') ORDER BY snapshot_id DESC"
        )


class LakeResource(dg.ConfigurableResource):
    """The lake's folder; `open()` hands out the process's one `Lake` for it."""

    root: str

    def open(self) -> Lake:
        return open_lake(Path(self.root))


_open_lakes: dict[Path, Lake] = {}
_open_lakes_lock = threading.Lock()


def open_lake(root: Path) -> Lake:
    """The process's one `Lake` for a folder: connections are kept, not made for every asset."""
    root = Path(root).resolve()
    with _open_lakes_lock:
        return _open_lakes.setdefault(root, Lake(root))
