"""Maintenance over random histories and beside other processes: what is kept reads as before."""

import multiprocessing
import os
import random
import sqlite3
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from toy_table import COMMIT, TABLE, toys

from assets.shared.schema import Column, Table
from resources.lake import Lake
from resources.lake_tables import LakeError
from resources.maintenance import maintain
from resources.retention import Retention

OTHER = replace(TABLE, name="others", partition_by=("site",))
PARTITIONS = [{"site": site, "fit": fit} for site in "ab" for fit in "xy"]


def partition_of(table: Table, partition: dict[str, str]) -> dict[str, str]:
    return {name: partition[name] for name in table.partition_by}


def grown(table: Table) -> Table:
    """The table with one column more."""
    added = Column(f"added_{len(table.columns)}", "VARCHAR", "added later", nullable=True)
    return replace(table, columns=(*table.columns, added))


def rows_for(table: Table, partition: dict[str, str], n_rows: int, first: int) -> pl.DataFrame:
    """Whole rows; feature ids from `first`, so that appended rows get keys of their own."""
    frame = toys(n_rows, share=first / 7).with_columns(pl.col("feature_id") + first)
    extra = [c.name for c in table.columns if c.name not in (*frame.columns, "site", "fit")]
    frame = frame.with_columns(pl.lit(f"value {first}").alias(name) for name in extra)
    missing = {name: partition[name] for name in ("site", "fit")}
    return frame.with_columns(**{name: pl.lit(value) for name, value in missing.items()})


class History:
    """A lake, and beside it everything that its versions held when they were written."""

    def __init__(self, root: Path, draw: random.Random) -> None:
        self.lake = Lake(root)
        self.draw = draw
        self.tables = {"toys": TABLE, "others": OTHER}
        self.states: dict[int, dict[str, pl.DataFrame]] = {}
        self.n_ids = 0

    def step(self) -> None:
        table = self.tables[self.draw.choice(["toys", "others"])]
        partition = self.draw.choice(PARTITIONS)
        kind = self.draw.choices(["replace", "append", "empty", "grow"], [5, 5, 1, 0.5])[0]
        self.n_ids += 10
        # Runs that overlap, of some snapshots each.
        run = self.n_ids // 40 - self.draw.randint(0, 1)
        commit = replace(COMMIT, run_id=f"run-{run}")
        rows = rows_for(table, partition, self.draw.randint(1, 6), self.n_ids)
        if kind == "append":
            self.lake.append({table: table.conform(rows, partition_of(table, partition))}, COMMIT)
        elif kind == "grow":
            self.tables[table.name] = grown(table)
            self.lake.close()
            self.lake.ensure_tables([self.tables[table.name]])
        else:
            rows = rows.head(0) if kind == "empty" else rows
            self.lake.replace({table: rows}, partition_of(table, partition), commit)
        self.remember()

    def remember(self) -> None:
        newest = int(self.lake.snapshots()["snapshot_id"].max())
        self.states[newest] = {name: self.lake.read(t) for name, t in self.tables.items()}

    def check(self, expired: set[int]) -> None:
        for version, state in self.states.items():
            for name, then in state.items():
                if version in expired:
                    with pytest.raises(LakeError, match=f"no version {version}: it was expired"):
                        self.lake.read(self.tables[name], version=version)
                else:
                    now = self.lake.read(self.tables[name], version=version, columns=then.columns)
                    assert now.schema == then.schema and now.equals(then), (version, name)


@pytest.mark.parametrize("seed", range(3))
def test_every_kept_version_of_a_random_history_reads_as_before(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    history = History(tmp_path / "lake", draw)
    expired: set[int] = set()
    totals: Counter[str] = Counter()
    for is_last in (False, False, False, True):
        for _ in range(draw.randint(3, 8)):
            history.step()
        held = sorted(set(history.states) - expired)
        policy = Retention(
            keep_days=0,
            keep_runs=1 if is_last else draw.randint(1, 4),
            keep_versions=tuple(draw.sample(held, min(2, len(held)))),
            safe_hours=1,
        )
        # Two hours on, what was scheduled is past the safe age; now it isn't.
        now = datetime.now(UTC) + timedelta(hours=2 if is_last else draw.choice([0, 2]))
        dry = maintain(history.lake, policy, now=now)
        done = maintain(history.lake, policy, now=now, is_dry=False)
        assert done.expired == dry.expired
        assert not set(done.expired) & {*policy.keep_versions, max(history.states)}
        expired |= set(done.expired)
        totals.update({step.name: step.n_items for step in done.steps})
        history.check(expired)
        history.remember()
    history.step()
    history.check(expired)
    assert all(totals[name] for name in ("versions ended", "data files removed")), totals
    assert totals["small files merged"], totals


def _write(root: str, n_writes: int) -> None:
    lake = Lake(Path(root))
    for i in range(1, n_writes + 1):
        partition = PARTITIONS[i % 2]
        lake.replace({TABLE: toys(i % 5 + 1, share=float(i % 5 + 1))}, partition, COMMIT)
        rows = rows_for(OTHER, partition, 1, 10 * i)
        lake.append({OTHER: OTHER.conform(rows, {"site": "a"})}, COMMIT)
    lake.close()


def _read(root: str, stop: str) -> None:
    lake = Lake(Path(root))
    n_others = 0
    while not Path(stop).exists():
        for count, shares in lake.query(
            "SELECT count(*)::DOUBLE, list(DISTINCT share) FROM toys GROUP BY site, fit"
        ).iter_rows():
            assert shares == [count], "a torn read"
        found = lake.query("SELECT count(*) FROM others").item()
        assert found >= n_others, "rows were lost"
        n_others = found
    lake.close()


def age_what_is_scheduled(root: Path, days: int) -> None:
    """Makes the catalog say that files were scheduled to go days ago."""
    then = (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%d %H:%M:%S.%f+00")
    with sqlite3.connect(root / "catalog.sqlite") as catalog:
        catalog.execute(
            "UPDATE ducklake_files_scheduled_for_deletion SET schedule_start = ?", [then]
        )


def test_beside_a_writer_and_a_reader_nothing_is_lost(tmp_path: Path) -> None:
    root, stop = tmp_path / "lake", tmp_path / "stop"
    policy = Retention(keep_days=0, keep_runs=2, safe_hours=1)
    lake = Lake(root)
    _write(str(root), 6)
    maintain(lake, policy, is_dry=False)
    lake.close()
    age_what_is_scheduled(root, 2)
    orphan = root / "data" / "main" / "toys" / "site=a" / "fit=x" / "orphan.parquet"
    orphan.write_bytes(b"left by a killed writer")
    os.utime(orphan, (0, 0))
    spawn = multiprocessing.get_context("spawn")
    writer = spawn.Process(target=_write, args=(str(root), 15))
    reader = spawn.Process(target=_read, args=(str(root), str(stop)))
    writer.start()
    reader.start()
    reports = []
    while writer.is_alive():
        reports.append(maintain(lake, policy, is_dry=False))
    writer.join()
    stop.touch()
    reader.join()
    assert (writer.exitcode, reader.exitcode) == (0, 0)
    reports.append(maintain(lake, policy, is_dry=False))
    for name in ("data files removed", "small files merged", "versions ended"):
        assert sum(step.n_items for r in reports for step in r.steps if step.name == name), name
    assert not orphan.exists()
    last = {15 % 2: 15, 14 % 2: 14}
    for place, i in last.items():
        assert len(lake.read(TABLE, PARTITIONS[place])) == i % 5 + 1
    assert sorted(lake.read(OTHER)["feature_id"]) == sorted(
        [10 * i for i in range(1, 7)] + [10 * i for i in range(1, 16)]
    )
    for version in lake.snapshots()["snapshot_id"]:
        assert len(lake.read(OTHER, version=version)) > 6


def test_a_maintenance_killed_at_any_step_is_made_up_for_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(tmp_path / "lake")
    _write(str(lake.root), 4)
    rows = lake.read(OTHER)
    policy = Retention(keep_days=0, keep_runs=2, safe_hours=1)
    now = datetime.now(UTC) + timedelta(hours=2)
    for name in ("merge_small_files", "_clean_up", "_unused_files"):
        with monkeypatch.context() as patch:

            def killed(*_: object, **__: object) -> None:
                raise KeyboardInterrupt

            patch.setattr(f"resources.maintenance.{name}", killed)
            with pytest.raises(KeyboardInterrupt):
                maintain(lake, policy, is_dry=False, now=now)
        assert lake.read(OTHER).equals(rows)
    maintain(lake, policy, is_dry=False, now=now)
    _write(str(lake.root), 2)
    rows = lake.read(OTHER)
    maintain(lake, policy, is_dry=False, now=now)
    # Versions that hold the small files end once a newer run is kept in place of theirs.
    newer = replace(COMMIT, run_id="run-2")
    lake.replace({TABLE: toys(3)}, PARTITIONS[0], newer)
    for _ in range(2):
        maintain(lake, policy.model_copy(update={"keep_runs": 1}), is_dry=False, now=now)
    assert lake.read(OTHER).equals(rows)
    assert len(list(lake.data_folder.rglob("*.parquet"))) == 3
