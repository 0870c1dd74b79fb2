"""Maintenance of the lake: old versions end, files that nothing needs go, small files are merged.

`maintain` takes these steps in order; each is complete in itself, so that a killed one is made up
for by the next:

1. expire: snapshots that retention.py doesn't keep. Their files are only scheduled to go.
2. merge small files: tables that rows are appended to (run_ledger) get a file a commit. Their
   partitions are written again, as one file, in a snapshot; older versions keep the files that they
   had, until they end. (DuckLake's own merge takes those from under a reader of the version before:
   a query beside it found no rows.) Partitions that are written whole are one file already.
3. clean up: scheduled files, and files that no commit took over, once they are older than the
   safe age. Queries under way may still read them before that.
4. shards and scratch: unused_files.py.

Steps on the catalog hold the lock of commits, so a writer waits and never conflicts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import duckdb
import filelock
import polars as pl

from assets.activations.tables import ACTIVATION_SHARDS
from resources.lake import Lake
from resources.lake_tables import CATALOG_NAME, LakeError
from resources.retention import (
    METADATA,
    Retention,
    unneeded_data_files,
    values_in_versions,
    versions_to_expire,
)
from resources.unused_files import busy_studies, remove_scratch, remove_shards, size_of

SMALL_FILE_BYTES = 32 * 2**20
LOCK_NAME = "maintenance.lock"
# Of run ids, those that are part of a larger run, with its id; the others are runs of their own.
LargerRuns: TypeAlias = "Callable[[Collection[str]], Mapping[str, str]]"


@dataclass(frozen=True)
class Step:
    """One kind of thing that maintenance dealt with, or in a dry run would deal with.

    `n_bytes` is the disk space of it, None where that says nothing; `note` is what to know: when
    it goes, or why something was left.
    """

    name: str
    n_items: int
    n_bytes: int | None = None
    note: str = ""


@dataclass(frozen=True)
class MaintenanceReport:
    """What was done, or in a dry run would be; `expired` are the versions that end."""

    is_dry: bool
    expired: tuple[int, ...]
    n_kept: int
    steps: tuple[Step, ...]


def maintain(
    lake: Lake,
    retention: Retention | None = None,
    *,
    is_dry: bool = True,
    now: datetime | None = None,
    larger_runs: LargerRuns | None = None,
) -> MaintenanceReport:
    """Expire, merge and clean up; `is_dry` only says what would go, and changes nothing.

    `now` stands in for the clock. A snapshot's run is that of its commit; `larger_runs` says which
    of these were made by another (a stage's, by the study's) and count as that one. Raises
    LakeError while another maintenance is at work, where `keep_versions` names a version that the
    lake does not hold, and where DuckLake refuses.
    """
    retention = retention or Retention()
    now = now or datetime.now(UTC)
    safe_before = retention.safe_before(now)
    with _alone(lake.root):
        expired, kept, unneeded = expire(
            lake, retention, now, is_dry=is_dry, larger_runs=larger_runs
        )
        steps = [Step("versions ended", len(expired), None, f"{len(kept)} are kept")]
        steps += [unneeded, merge_small_files(lake, is_dry=is_dry)]
        steps += _clean_up(lake, safe_before, is_dry=is_dry)
        steps += _unused_files(lake, expired, safe_before, is_dry=is_dry)
    return MaintenanceReport(is_dry, tuple(expired), len(kept), tuple(steps))


def expire(
    lake: Lake,
    retention: Retention,
    now: datetime,
    *,
    is_dry: bool,
    larger_runs: LargerRuns | None = None,
) -> tuple[list[int], list[int], Step]:
    """Ends the versions that are not kept; their ids, those kept, and the files only they need."""
    with _catalog(lake, "expiring versions") as cursor:
        snapshots = cursor.execute(
            # Other clients may put any text there.
            "SELECT snapshot_id, snapshot_time, TRY(commit_extra_info ->> 'run_id') AS run_id "
            "FROM ducklake_snapshots(?)",
            [CATALOG_NAME],
        ).pl()
        held = set(snapshots["snapshot_id"])
        missing = sorted(set(retention.keep_versions) - held)
        if missing:
            raise LakeError(
                f"keep_versions names {missing}, which the lake does not hold (any more); expected "
                f"some of {len(held)} versions from {min(held)} to {max(held)}"
            )
        if larger_runs is not None:
            larger = larger_runs(set(snapshots["run_id"].drop_nulls()))
            snapshots = snapshots.with_columns(pl.col("run_id").replace(larger))
        expired = versions_to_expire(snapshots, retention, now)
        kept = sorted(held - set(expired))
        n_files, n_bytes = unneeded_data_files(cursor, kept)
        if expired and not is_dry:
            cursor.execute(
                "CALL ducklake_expire_snapshots(?, versions => ?::UBIGINT[])",
                [CATALOG_NAME, expired],
            )
    note = f"removed {retention.safe_hours:g} hours later, by the next maintenance"
    return expired, kept, Step("data files that only they need", n_files, n_bytes, note)


def merge_small_files(lake: Lake, *, is_dry: bool) -> Step:
    """Writes partitions of small files again, each as one; how many files there were."""
    with contextlib.closing(lake.connect()) as cursor:
        partitions = cursor.execute(_SMALL_FILES, [SMALL_FILE_BYTES]).fetchall()
    if not is_dry:
        for table, columns, values, _ in partitions:
            _write_again(lake, table, dict(zip(columns, values, strict=True)))
    names = ", ".join(sorted({table for table, *_ in partitions}))
    return Step("small files merged", sum(n for *_, n in partitions), None, names)


# Partitions with several live files, most of them small.
_SMALL_FILES = f"""
    WITH parts AS (
        SELECT data_file_id, list(column_name ORDER BY partition_key_index) AS columns,
               list(partition_value ORDER BY partition_key_index) AS partition
        FROM {METADATA}.ducklake_file_partition_value
        JOIN {METADATA}.ducklake_partition_column USING (table_id, partition_key_index)
        JOIN (SELECT table_id, column_id, column_name FROM {METADATA}.ducklake_column
              WHERE end_snapshot IS NULL) USING (table_id, column_id)
        GROUP BY data_file_id
    )
    SELECT table_name, columns, partition, count(*)
    FROM {METADATA}.ducklake_data_file AS file
    JOIN {METADATA}.ducklake_table AS named USING (table_id)
    JOIN parts USING (data_file_id)
    WHERE file.end_snapshot IS NULL AND named.end_snapshot IS NULL
    GROUP BY table_name, columns, partition
    HAVING count(*) > 1 AND median(file_size_bytes) < ?
    ORDER BY ALL
"""


def _write_again(lake: Lake, table: str, partition: dict[str, str]) -> None:
    """Writes a partition's rows again, in a snapshot of its own."""
    where = " AND ".join(f'"{name}"::VARCHAR = ?' for name in partition)
    values = list(partition.values())
    with _catalog(lake, f"merging small files of {table}") as cursor:
        cursor.execute("BEGIN")
        try:
            cursor.execute(
                f'CREATE TEMP TABLE merged AS SELECT * FROM {CATALOG_NAME}."{table}" WHERE {where}',
                values,
            )
            cursor.execute(f'DELETE FROM {CATALOG_NAME}."{table}" WHERE {where}', values)
            cursor.execute(f'INSERT INTO {CATALOG_NAME}."{table}" SELECT * FROM merged')
            cursor.execute(
                f"CALL {CATALOG_NAME}.set_commit_message('featurelake maintenance', ?)",
                [f"small files of {table} merged"],
            )
            cursor.execute("COMMIT")
            cursor.execute("DROP TABLE merged")
        except duckdb.Error:
            with contextlib.suppress(duckdb.Error):
                cursor.execute("ROLLBACK")
            raise


def _clean_up(lake: Lake, safe_before: datetime, *, is_dry: bool) -> Iterator[Step]:
    """Removes data files whose versions ended, and files that no commit took over."""
    for name, function in (
        ("data files removed", "ducklake_cleanup_old_files"),
        ("files of killed writers removed", "ducklake_delete_orphaned_files"),
    ):
        call = f"SELECT path FROM {function}(?, older_than => ?, dry_run => ?)"
        with _catalog(lake, name) as cursor:
            young = _scheduled_since(cursor, safe_before)
            older_than = safe_before
            # An SQLite catalog compares the times as texts, right only to a day or so: go back
            # until nothing young is among the files.
            while True:
                paths = cursor.execute(call, [CATALOG_NAME, older_than, True]).fetchall()
                if young.isdisjoint(Path(path).name for (path,) in paths):
                    break
                older_than -= timedelta(days=1)
            n_bytes = sum(size_of(Path(path)) for (path,) in paths)
            if paths and not is_dry:
                cursor.execute(call, [CATALOG_NAME, older_than, False]).fetchall()
        yield Step(name, len(paths), n_bytes)


def _scheduled_since(cursor: duckdb.DuckDBPyConnection, time: datetime) -> set[str]:
    """Names of data files that were scheduled to go at that time or later."""
    rows = cursor.execute(
        f"SELECT path FROM {METADATA}.ducklake_files_scheduled_for_deletion "
        "WHERE schedule_start::TIMESTAMPTZ >= ?",
        [time],
    ).fetchall()
    return {Path(path).name for (path,) in rows}


def _unused_files(
    lake: Lake, expired: Sequence[int], safe_before: datetime, *, is_dry: bool
) -> Iterator[Step]:
    names = ("activation shards removed", "scratch of dead processes removed")
    if busy := busy_studies(lake.root):
        note = f"left: {', '.join(busy)} is being materialized"
        yield from (Step(name, 0, 0, note) for name in names)
        return
    # Asked again: what was committed since this maintenance began is needed too.
    held = lake.snapshots()["snapshot_id"].to_list()
    kept = sorted(set(held) - set(expired))
    needed = values_in_versions(lake, ACTIVATION_SHARDS.name, "path", kept)
    used_before = safe_before.timestamp()
    shards = remove_shards(lake.shards_folder, needed, used_before, is_dry=is_dry)
    if shards.n_items and not is_dry:
        from assets.activations.captured_documents import CapturedDocuments

        with contextlib.closing(CapturedDocuments(lake.shards_folder)) as index:
            index.forget_missing()
    scratch = remove_scratch(lake.scratch_folder, used_before, is_dry=is_dry)
    for name, removed in zip(names, (shards, scratch), strict=True):
        yield Step(name, removed.n_items, removed.n_bytes)


@contextlib.contextmanager
def _catalog(lake: Lake, what: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A cursor while no one commits; DuckDB's refusals as LakeErrors that say what was refused."""
    with lake.exclusive(), contextlib.closing(lake.connect()) as cursor:
        try:
            yield cursor
        except duckdb.Error as error:
            raise LakeError(
                f"maintenance of the lake in {lake.root} stopped at {what}: {error}; what was done "
                "before stands, nothing is lost: run it again"
            ) from error


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    lock = filelock.FileLock(root / LOCK_NAME)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise LakeError(
            f"the lake in {root} is being maintained by another process; wait for it"
        ) from None
    try:
        yield
    finally:
        lock.release()
