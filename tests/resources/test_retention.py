"""Versions are kept by when they were current, by run and by name, as a plain definition says."""

import contextlib
import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from any_rows import any_rows

from assets.catalogue.tables import FEATURES
from resources.catalogue_changes import catalogue_changes
from resources.lake import Lake
from resources.lake_commit import Commit
from resources.maintenance import maintain
from resources.retention import METADATA, Retention, versions_to_expire

NOW = datetime(2026, 11, 21, tzinfo=UTC)
SITE = "demo:model@L15.mlp_hidden"
N_FITS = 6


def history(snapshots: Iterable[tuple[float, str | None]]) -> pl.DataFrame:
    """Snapshots 0, 1, … of (days before NOW, run)."""
    rows = [(i, NOW - timedelta(days=days), run) for i, (days, run) in enumerate(snapshots)]
    schema = {
        "snapshot_id": pl.Int64,
        "snapshot_time": pl.Datetime("us", "UTC"),
        "run_id": pl.String,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def kept(snapshots: pl.DataFrame, retention: Retention) -> list[int]:
    expired = versions_to_expire(snapshots, retention, NOW)
    assert expired == sorted(set(expired)) and set(expired) <= set(snapshots["snapshot_id"])
    return sorted(set(snapshots["snapshot_id"]) - set(expired))


def test_a_version_is_kept_while_it_was_current_within_the_days() -> None:
    one_run = history([(days, "run") for days in (50, 40, 31, 29, 2, 1)])
    assert kept(one_run, Retention(keep_runs=1)) == [2, 3, 4, 5]
    assert kept(one_run, Retention(keep_runs=1, keep_days=1.5)) == [4, 5]
    assert kept(one_run, Retention(keep_runs=1, keep_days=0)) == [5]
    assert kept(one_run, Retention(keep_runs=1, keep_days=0, keep_versions=(1,))) == [1, 5]
    assert kept(one_run, Retention(keep_days=50)) == [0, 1, 2, 3, 4, 5]


def test_the_last_version_of_each_of_the_newest_runs_is_kept() -> None:
    overlapping = history((100 - i, run) for i, run in enumerate("aababbccbdd"))
    for n, expected in ((1, [10]), (2, [8, 10]), (3, [7, 8, 10]), (4, [3, 7, 8, 10])):
        assert kept(overlapping, Retention(keep_days=0, keep_runs=n)) == expected
    assert kept(overlapping, Retention(keep_days=0, keep_runs=99)) == [3, 7, 8, 10]


def test_snapshots_of_no_run_are_kept_only_while_they_were_current() -> None:
    snapshots = history([(9, None), (8, "a"), (7, None), (6, "b"), (5, None), (4, None)])
    assert kept(snapshots, Retention(keep_days=0, keep_runs=2)) == [1, 3, 5]
    assert kept(snapshots, Retention(keep_days=6.5, keep_runs=1)) == [2, 3, 4, 5]
    assert kept(history([(9, None), (8, None)]), Retention(keep_days=0)) == [1]
    assert kept(history([]), Retention()) == []


def test_a_run_of_forty_snapshots_counts_as_one() -> None:
    runs = [(60 * run + 1 - i / 100, f"run-{run}") for run in range(12, 0, -1) for i in range(40)]
    found = kept(history(runs), Retention())
    assert found == [40 * run + 39 for run in range(2, 12)]
    ten_snapshots_of_today = [*runs[-40:], *((1 - i / 100, "today") for i in range(40))]
    assert kept(history(ten_snapshots_of_today), Retention(keep_runs=2)) == list(range(39, 80))


def current_at(snapshots: Sequence[tuple[int, datetime, str | None]], time: datetime) -> set[int]:
    """The newest snapshot that was there at a time; none before the first."""
    return set(sorted(i for i, written, _ in snapshots if written <= time)[-1:])


@pytest.mark.parametrize("seed", range(60))
def test_random_histories_keep_what_the_plain_definition_keeps(seed: int) -> None:
    draw = random.Random(seed)
    n = draw.randint(1, 30)
    days = sorted((draw.uniform(0.01, 60) for _ in range(n)), reverse=True)
    names = [None, *(f"run-{i}" for i in range(draw.randint(1, 8)))]
    frame = history((day, draw.choice(names)) for day in days)
    # Some ended before: ids have gaps.
    frame = frame.sample(draw.randint(1, n), seed=seed, shuffle=True)
    snapshots = frame.rows()
    retention = Retention(
        keep_days=draw.choice([0, 10, 30, draw.choice(days)]),
        keep_runs=draw.randint(1, 6),
        keep_versions=tuple(draw.sample(range(n), draw.randint(0, min(2, n)))),
    )
    oldest = NOW - timedelta(days=retention.keep_days)
    times = [oldest, NOW, *(time for _, time, _ in snapshots if time >= oldest)]
    expected = {i for time in times for i in current_at(snapshots, time)}
    runs: list[str] = []
    for i, _, run in sorted(snapshots, reverse=True):
        if run is not None and run not in runs:
            runs.append(run)
            if len(runs) <= retention.keep_runs:
                expected.add(i)
    expected |= set(retention.keep_versions) & {i for i, *_ in snapshots}
    assert kept(frame, retention) == sorted(expected)


def write_run(lake: Lake, run: str, label: str) -> None:
    rows = any_rows(FEATURES, 2, 0).with_columns(label=pl.lit(label))
    for fit in range(N_FITS):
        partition = {"site": SITE, "fit": f"snmf-k{fit:03d}"}
        lake.replace({FEATURES: rows}, partition, Commit("features", "p", run))


def age(lake: Lake, days: int) -> None:
    """Makes the catalog say that all snapshots were written so many days earlier."""
    times = lake.snapshots().select("snapshot_id", "snapshot_time").rows()
    with contextlib.closing(lake.connect()) as cursor:
        for snapshot, time in times:
            cursor.execute(
                f"UPDATE {METADATA}.ducklake_snapshot SET snapshot_time = ? WHERE snapshot_id = ?",
                [f"{time - timedelta(days=days):%Y-%m-%d %H:%M:%S.%f+00}", snapshot],
            )


def test_of_runs_sixty_days_apart_the_last_ones_changes_and_the_days_between_can_be_read(
    tmp_path: Path,
) -> None:
    lake = Lake(tmp_path / "lake")
    labels = ("months", "days", "weekdays")
    last_of_runs: list[int] = []
    start = datetime.now(UTC)
    for label in labels:
        if last_of_runs:
            age(lake, 60)
        start = datetime.now(UTC)
        write_run(lake, f"run of {label}", label)
        last_of_runs.append(max(lake.snapshots()["snapshot_id"].to_list()))
    policy = Retention(keep_runs=2, safe_hours=1)
    for later in (timedelta(), timedelta(hours=2)):
        maintain(lake, policy, is_dry=False, now=datetime.now(UTC) + later)
    held = set(lake.snapshots()["snapshot_id"])
    assert held == set(range(last_of_runs[1], last_of_runs[2] + 1))
    found = catalogue_changes(lake, start)
    assert found.from_snapshot == last_of_runs[1]
    relabelled = found.rows.filter(change="relabelled", column_name="label")
    assert relabelled["old_value"].to_list() == ["days"] * 2 * N_FITS
    assert len(found.rows) == 2 * N_FITS
    then = datetime.now(UTC) - timedelta(days=20)
    assert set(lake.read(FEATURES, timestamp=then)["label"]) == {"days"}
    by_sql = f"SELECT DISTINCT label FROM features AT (TIMESTAMP => TIMESTAMPTZ '{then}')"
    assert lake.query(by_sql)["label"].to_list() == ["days"]
    maintain(lake, Retention(keep_runs=1), is_dry=False)
    assert catalogue_changes(lake, start).from_snapshot == last_of_runs[1], "current 20 days ago"


def test_what_other_clients_write_into_a_commit_is_no_run(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    write_run(lake, "run-1", "days")
    cursor = lake.connect()
    for details in ("by hand", '["a", "list"]', ""):
        cursor.execute("BEGIN")
        cursor.execute("DELETE FROM features WHERE feature_id = 1 AND fit = 'snmf-k000'")
        cursor.execute("UPDATE features SET label = label || '.' WHERE fit = 'snmf-k001'")
        cursor.execute("CALL lake.set_commit_message('me', 'mended', extra_info => ?)", [details])
        cursor.execute("COMMIT")
    cursor.close()
    last_of_run, newest = (
        max(lake.snapshots().filter(rows)["snapshot_id"].to_list())
        for rows in (pl.col("author") == "featurelake", pl.lit(True))
    )
    assert newest == last_of_run + 3
    maintain(lake, Retention(keep_days=0, keep_runs=1), is_dry=False)
    assert lake.snapshots()["snapshot_id"].to_list() == [newest, last_of_run]
