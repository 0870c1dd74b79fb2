"""`make changes` prints what differs between two versions, from the last run on if not told."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from any_rows import any_rows
from platform_of_test import Platform

from assets.catalogue.tables import FEATURES
from orchestration import show_changes
from orchestration.run_tags import MAIN_JOB, STUDY_TAG
from orchestration.show_changes import start_of_last_run
from resources.catalogue_changes import catalogue_changes, features_as_written
from resources.lake import Lake
from resources.lake_commit import Commit
from resources.lake_tables import LakeError
from resources.maintenance import maintain
from resources.retention import Retention
from resources.study_files import StudyError

PARTITION = {"site": "demo:model@L15.mlp_hidden", "fit": "snmf-k004"}
COMMIT = Commit("features", "p", "run-1")


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setenv("FEATURELAKE_LAKE", str(tmp_path / "lake"))
    return Lake(tmp_path / "lake")


def rows(label: str, study: str = "demo") -> pl.DataFrame:
    frame = any_rows(FEATURES, 3, 0).with_columns(study=pl.lit(study), s_cd=pl.lit(0.5))
    return frame.with_columns(label=pl.lit(label))


def main_run(platform: Platform, study: str) -> dg.DagsterRun:
    job = platform.definitions().resolve_job_def(MAIN_JOB)
    return platform.instance.create_run_for_job(job, tags={STUDY_TAG: study})


def test_changes_between_two_versions_or_times_of_one_study(lake: Lake) -> None:
    first = lake.replace({FEATURES: rows("days")}, PARTITION, COMMIT)
    other = {**PARTITION, "site": "mine:model@L1.mlp_hidden"}
    second = lake.replace({FEATURES: rows("mine", "mine")}, other, COMMIT)
    third = lake.replace({FEATURES: rows("weekdays").head(2)}, PARTITION, COMMIT)
    found = catalogue_changes(lake, first)
    assert (found.from_snapshot, found.to_snapshot) == (first, third)
    assert found.rows["change"].to_list() == ["added"] * 3 + ["lost"] + ["relabelled"] * 2
    assert set(catalogue_changes(lake, first, second).rows["change"]) == {"added"}
    assert set(catalogue_changes(lake, first, study="demo").rows["change"]) == {
        "lost",
        "relabelled",
    }
    assert catalogue_changes(lake, second, study="mine").rows.is_empty()
    time = lake.snapshots().filter(snapshot_id=second)["snapshot_time"].item()
    assert catalogue_changes(lake, time).rows.equals(catalogue_changes(lake, second).rows)
    with pytest.raises(LakeError, match=f"from {third} to {first}, which is before"):
        catalogue_changes(lake, third, first)


def test_a_column_that_the_table_got_later_is_compared_from_the_next_rows_on(lake: Lake) -> None:
    columns = tuple(c for c in FEATURES.columns if c.name != "s_cd")
    without = replace(FEATURES, columns=columns)
    other = {**PARTITION, "fit": "pca-k004"}
    frames = {fit: rows(fit) for fit in ("snmf", "pca")}
    first = lake.replace({without: frames["snmf"].drop("s_cd")}, PARTITION, COMMIT)
    second = lake.replace({without: frames["pca"].drop("s_cd")}, other, COMMIT)
    assert catalogue_changes(lake, first).rows["change"].to_list() == ["added"] * 3
    lake.close()
    lake.ensure_tables([FEATURES])
    grown = max(lake.snapshots()["snapshot_id"].to_list())
    assert grown > second, "the older version has the column, its rows never had"
    third = lake.replace({FEATURES: frames["snmf"]}, PARTITION, COMMIT)
    for old in (second, grown):
        assert catalogue_changes(lake, old).rows.is_empty()
    rescored = frames["snmf"].with_columns(s_cd=pl.lit(0.75))
    lake.replace({FEATURES: rescored}, PARTITION, COMMIT)
    lake.replace({FEATURES: frames["pca"].with_columns(label=pl.lit("x"))}, other, COMMIT)
    found = catalogue_changes(lake, third).rows
    counts = found.group_by("fit", "change", "column_name").len().sort("fit").rows()
    assert counts == [
        ("pca-k004", "relabelled", "label", 3),
        ("snmf-k004", "rescored", "s_cd", 3),
    ]
    relabelled = catalogue_changes(lake, grown).rows["column_name"].unique().to_list()
    assert relabelled == ["label"], "rows without s_cd are not compared by it"
    (before,) = features_as_written(lake, other, version=third)
    (now,) = features_as_written(lake, other)
    assert set(now.columns) - set(before.columns) == {"s_cd"}
    assert len(list(features_as_written(lake, {}, version=third))) == 2


def test_make_changes_prints_the_rows_and_their_counts(
    lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    first = lake.replace({FEATURES: rows("days")}, PARTITION, COMMIT)
    lake.replace({FEATURES: rows("weekdays").with_columns(s_cd=pl.lit(0.75))}, PARTITION, COMMIT)
    assert show_changes.main({"FROM": str(first)}) == 0
    printed = capsys.readouterr().out
    assert "weekdays" in printed and "+0.25" in printed
    assert "features relabelled 3, rescored 3" in printed
    assert show_changes.main({"FROM": str(first), "TO": str(first)}) == 0
    assert f"no changes from snapshot {first} to {first}" in capsys.readouterr().out
    assert show_changes.main({"FROM": "yesterday"}) == 2
    assert "neither a snapshot id" in capsys.readouterr().out
    assert show_changes.main({"FROM": "2001-01-01"}) == 2


def test_after_a_first_run_every_feature_is_new(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    long_ago = datetime(2001, 1, 1, tzinfo=UTC)
    monkeypatch.setattr(show_changes, "open_instance", lambda: None)
    monkeypatch.setattr(show_changes, "start_of_last_run", lambda *_: long_ago)
    lake.replace({FEATURES: rows("days")}, PARTITION, COMMIT)
    assert show_changes.main({}) == 0
    assert "features added 3" in capsys.readouterr().out


def test_a_first_run_whose_beginning_has_ended_is_said_not_taken_for_no_changes(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(show_changes, "open_instance", lambda: None)
    long_ago = datetime(2001, 1, 1, tzinfo=UTC)
    monkeypatch.setattr(show_changes, "start_of_last_run", lambda *_: long_ago)
    lake.replace({FEATURES: rows("days")}, PARTITION, COMMIT)
    maintain(lake, Retention(keep_days=0, keep_runs=1), is_dry=False)
    assert show_changes.main({}) == 2
    assert "it was expired" in capsys.readouterr().out.replace("\n", " ")


def test_no_lake_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEATURELAKE_LAKE", str(tmp_path / "none"))
    assert show_changes.main({}) == 1
    assert "make demo" in capsys.readouterr().out


def test_without_from_changes_count_from_the_start_of_the_studys_last_run(
    platform: Platform,
) -> None:
    with pytest.raises(StudyError, match=r"no run of any study.*FROM="):
        start_of_last_run(platform.instance, None)
    lake = platform.lake
    before = lake.replace({FEATURES: rows("days")}, PARTITION, COMMIT)
    main_run(platform, "mini")
    lake.replace({FEATURES: rows("weekdays")}, PARTITION, COMMIT)
    started = start_of_last_run(platform.instance, "mini")
    assert started < datetime.now(UTC)
    found = catalogue_changes(lake, started)
    assert found.from_snapshot == before and set(found.rows["change"]) == {"relabelled"}
    main_run(platform, "other")
    assert start_of_last_run(platform.instance, "mini") == started
    assert start_of_last_run(platform.instance, None) > started
    with pytest.raises(StudyError, match="no run of third"):
        start_of_last_run(platform.instance, "third")
