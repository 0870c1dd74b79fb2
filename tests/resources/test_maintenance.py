"""Maintenance ends old versions and removes what nothing needs, never anything that is needed."""

import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import filelock
import polars as pl
import pytest
from any_rows import any_rows
from toy_table import COMMIT, PARTITION, TABLE, toys

from assets.activations.tables import ACTIVATION_SHARDS
from resources.lake import Lake
from resources.lake_commit import Commit
from resources.lake_tables import LakeError
from resources.maintenance import MaintenanceReport, Step, maintain
from resources.retention import Retention

LATER = timedelta(days=60)
SITE = {"site": "demo:model@L15.mlp_hidden"}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def step(report: MaintenanceReport, name: str) -> Step:
    return next(step for step in report.steps if step.name == name)


def counts(report: MaintenanceReport) -> dict[str, int]:
    return {step.name: step.n_items for step in report.steps if step.n_items}


def data_files(lake: Lake) -> set[str]:
    return {path.name for path in lake.data_folder.rglob("*.parquet")}


def commit_of(run: int) -> Commit:
    return replace(COMMIT, run_id=f"run-{run}")


def keep(n: int, **changes: object) -> Retention:
    return Retention.model_validate({"keep_runs": n, "keep_days": 1, "safe_hours": 1, **changes})


def test_old_versions_end_and_their_files_go_after_the_safe_age(lake: Lake) -> None:
    versions = [lake.replace({TABLE: toys(3 + i)}, PARTITION, commit_of(i)) for i in range(5)]
    sizes = {path.name: path.stat().st_size for path in lake.data_folder.rglob("*.parquet")}
    now = datetime.now(UTC) + LATER
    dry = maintain(lake, keep(2), now=now)
    assert dry.is_dry and dry.expired == tuple(range(versions[-2]))
    assert len(lake.snapshots()) == versions[-1] + 1 and data_files(lake) == set(sizes)
    first = maintain(lake, keep(2), is_dry=False, now=now)
    assert (first.expired, first.n_kept) == (dry.expired, 2)
    planned = step(dry, "data files that only they need")
    assert planned.n_items == 3 and planned == step(first, planned.name)
    gone = set(sizes) - data_files(lake)
    assert len(gone) == 3 == step(first, "data files removed").n_items
    assert planned.n_bytes == sum(sizes[name] for name in gone)
    assert planned.n_bytes == step(first, "data files removed").n_bytes
    assert [len(lake.read(TABLE, version=v)) for v in versions[-2:]] == [6, 7]
    assert len(lake.read(TABLE)) == 7
    with pytest.raises(LakeError, match=rf"no version {versions[0]}.*expired"):
        lake.read(TABLE, version=versions[0])


def test_files_are_not_removed_before_the_safe_age(lake: Lake) -> None:
    for i in range(3):
        lake.replace({TABLE: toys(3 + i)}, PARTITION, COMMIT)
    orphan = next(lake.data_folder.rglob("*.parquet")).with_name("half.parquet")
    orphan.write_bytes(b"left by a killed writer")
    files = data_files(lake)
    policy = keep(1, keep_days=0)
    done = maintain(lake, policy, is_dry=False)
    assert len(done.expired) == 4 and data_files(lake) == files
    assert len(lake.read(TABLE)) == 5
    later = maintain(lake, policy, is_dry=False, now=datetime.now(UTC) + timedelta(hours=2))
    assert counts(later) == {"data files removed": 2, "files of killed writers removed": 1}
    assert not orphan.exists() and len(lake.read(TABLE)) == 5


def test_named_versions_outlive_all_others(lake: Lake) -> None:
    first, *_, last = (lake.replace({TABLE: toys(3 + i)}, PARTITION, COMMIT) for i in range(5))
    for hours in (0, 2):
        now = datetime.now(UTC) + LATER + timedelta(hours=hours)
        maintain(lake, keep(1, keep_versions=[first]), is_dry=False, now=now)
    assert lake.snapshots()["snapshot_id"].to_list() == [last, first]
    assert (len(lake.read(TABLE, version=first)), len(lake.read(TABLE))) == (3, 7)
    assert len(data_files(lake)) == 2
    with pytest.raises(LakeError, match=r"keep_versions names \[98, 99\].*2 versions from"):
        maintain(lake, keep(1, keep_versions=[first, 98, 99]))


def test_small_files_are_merged_and_every_version_reads_as_before(lake: Lake) -> None:
    lake.replace({TABLE: toys(2)}, PARTITION, COMMIT)
    other = {**PARTITION, "fit": "pca-k004"}
    lake.replace({TABLE: toys(2)}, other, COMMIT)
    versions = []
    for i in range(5):
        row = toys(1).with_columns(feature_id=pl.lit(100 + i))
        versions.append(lake.append({TABLE: TABLE.conform(row, PARTITION)}, COMMIT))
    history = {version: lake.read(TABLE, version=version) for version in versions}
    dry = maintain(lake)
    done = maintain(lake, is_dry=False)
    for report in (dry, done):
        assert step(report, "small files merged") == Step("small files merged", 6, None, "toys")
    assert lake.read(TABLE).equals(history[versions[-1]])
    assert lake.snapshot_of(TABLE, other) == versions[0] - 1, "one file already: left alone"
    for version, rows in history.items():
        assert lake.read(TABLE, version=version).equals(rows)
    live = lake.query("SELECT count(*) FROM ducklake_list_files('lake', 'toys')").item()
    assert live == 2
    newest = lake.snapshots().row(0, named=True)
    assert newest["commit_message"] == "small files of toys merged"
    assert counts(maintain(lake, is_dry=False)) == {}
    assert lake.snapshots()["snapshot_id"].max() == newest["snapshot_id"]


def write_shards(lake: Lake, names: list[str], days_old: float) -> None:
    lake.shards_folder.mkdir(parents=True, exist_ok=True)
    then = time.time() - days_old * 86400
    for name in names:
        for path in (lake.shards_folder / f"{name}.parquet", lake.shards_folder / f"{name}.json"):
            path.write_bytes(b"0123456789")
            os.utime(path, (then, then))


def commit_shards(lake: Lake, names: list[str]) -> int:
    rows = any_rows(ACTIVATION_SHARDS, len(names), 0)
    rows = rows.with_columns(path=pl.Series([f"{name}.parquet" for name in names]))
    return lake.replace({ACTIVATION_SHARDS: rows}, SITE, COMMIT)


def shard_names(lake: Lake) -> list[str]:
    return sorted(path.stem for path in lake.shards_folder.glob("*.parquet"))


def test_shards_stay_while_a_kept_version_names_them_and_go_after(lake: Lake) -> None:
    write_shards(lake, ["a", "b", "c", "unnamed"], days_old=10)
    write_shards(lake, ["young"], days_old=0)
    half = lake.shards_folder / "d.parquet.0f.partial"
    half.write_bytes(b"")
    os.utime(half, (0, 0))
    commit_shards(lake, ["a", "b"])
    commit_shards(lake, ["b", "c"])
    lake.replace({TABLE: toys()}, PARTITION, COMMIT)
    dry = maintain(lake)
    assert step(dry, "activation shards removed").n_items == 2 and half.exists()
    assert shard_names(lake) == ["a", "b", "c", "unnamed", "young"]
    assert step(maintain(lake, is_dry=False), "activation shards removed").n_bytes == 10
    assert shard_names(lake) == ["a", "b", "c", "young"] and not half.exists()
    assert len(list(lake.shards_folder.glob("*.json"))) == 4
    done = maintain(lake, Retention(keep_days=0, keep_runs=1), is_dry=False)
    assert step(done, "activation shards removed").n_items == 1
    assert shard_names(lake) == ["b", "c", "young"]


def test_scratch_of_dead_processes_goes_and_that_of_living_ones_stays(lake: Lake) -> None:
    lake.connect().close()
    long_ago = time.time() - 10 * 86400
    for name in ("dead", "alive", "young", "killed"):
        folder = lake.scratch_folder / name
        folder.mkdir()
        (folder / "block-0").write_bytes(b"x" * 100)
        for path in (folder / "block-0", folder):
            os.utime(path, (long_ago, long_ago))
    (lake.scratch_folder / "young" / "block-1").write_bytes(b"y")
    (lake.scratch_folder / "killed.lock").touch()
    with filelock.FileLock(lake.scratch_folder / "alive.lock"):
        dry = step(maintain(lake), "scratch of dead processes removed")
        assert len([path for path in lake.scratch_folder.iterdir() if path.is_dir()]) == 4
        removed = step(maintain(lake, is_dry=False), "scratch of dead processes removed")
    assert dry == removed and (removed.n_items, removed.n_bytes) == (2, 200)
    left = sorted(path.name for path in lake.scratch_folder.iterdir() if path.is_dir())
    assert left == ["alive", "young"]


def test_shards_and_scratch_are_left_while_a_study_is_materialized(lake: Lake) -> None:
    write_shards(lake, ["old"], days_old=10)
    lake.connect().close()
    with filelock.FileLock(lake.root / "study-demo.lock"):
        left = step(maintain(lake, is_dry=False), "activation shards removed")
    assert left.n_items == 0 and left.note == "left: demo is being materialized"
    assert shard_names(lake) == ["old"]
    maintain(lake, is_dry=False)
    assert shard_names(lake) == []


def test_two_maintenances_at_once_are_refused(lake: Lake) -> None:
    lake.connect().close()
    with (
        filelock.FileLock(lake.root / "maintenance.lock"),
        pytest.raises(LakeError, match="being maintained by another process"),
    ):
        maintain(lake)


def test_a_refusal_of_the_catalog_says_what_stopped_and_what_to_do(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.replace({TABLE: toys()}, PARTITION, COMMIT)
    monkeypatch.setattr("resources.maintenance.CATALOG_NAME", "nowhere")
    with pytest.raises(LakeError, match=r"(?s)stopped at expiring versions.*run it again"):
        maintain(lake)
