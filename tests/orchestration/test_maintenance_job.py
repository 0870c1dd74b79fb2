"""`make maintain` and the job `maintenance`: nothing is done unasked, and what is asked is kept."""

from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
from platform_of_test import Platform
from pydantic import ValidationError
from toy_table import COMMIT, PARTITION, TABLE, toys

from orchestration import run_maintenance
from orchestration.maintenance import in_units, larger_runs, maintenance_run_config
from orchestration.run_maintenance import settings_of
from orchestration.run_tags import MAIN_RUN_TAG, MAINTENANCE_JOB
from resources.lake import Lake
from resources.lake_tables import LakeError

FEW = {"keep_days": 0, "keep_runs": 2}


def write_versions(lake: Lake) -> list[int]:
    commits = [replace(COMMIT, run_id=f"run-{i}") for i in range(4)]
    return [lake.replace({TABLE: toys(3 + i)}, PARTITION, commits[i]) for i in range(4)]


def run(platform: Platform, **settings: object) -> dg.ExecuteInProcessResult:
    job = platform.definitions().resolve_job_def(MAINTENANCE_JOB)
    config = maintenance_run_config(**settings)
    return job.execute_in_process(
        instance=platform.instance, run_config=config, raise_on_error=False
    )


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    (event,) = (e for e in result.all_events if e.event_type_value == "STEP_OUTPUT")
    return {name: value.value for name, value in event.step_output_data.metadata.items()}


def test_the_job_only_says_what_would_go_until_it_is_told_to_apply(platform: Platform) -> None:
    versions = write_versions(platform.lake)
    dry = run(platform, **FEW)
    assert dry.success and metadata(dry)["n_expired"] == versions[-2]
    assert platform.lake.snapshots()["snapshot_id"].min() == 0
    done = run(platform, apply=True, **FEW)
    assert done.success and metadata(done)["is_dry"] is False
    assert platform.lake.snapshots()["snapshot_id"].to_list() == versions[:-3:-1]
    assert run(platform, apply=True).success
    assert len(platform.lake.snapshots()) == 2


def made_runs(platform: Platform, n: int, **tags: str) -> list[str]:
    """Ids of runs with these tags."""
    job = platform.definitions().resolve_job_def(MAINTENANCE_JOB)
    return [platform.instance.create_run_for_job(job, tags=tags).run_id for _ in range(n)]


def test_the_runs_of_one_launch_count_as_one(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestration.maintenance.RUNS_AT_A_TIME", 2)
    (alone, main) = made_runs(platform, 2)
    stages = made_runs(platform, 3, **{MAIN_RUN_TAG: main})
    backfilled = made_runs(platform, 2, **{"dagster/backfill": "many"})
    found = larger_runs(platform.instance, [alone, main, *stages, *backfilled, "forgotten"])
    assert found == dict.fromkeys(stages, main) | dict.fromkeys(backfilled, "many")
    lake = platform.lake
    by_run = {
        run_id: lake.replace({TABLE: toys()}, PARTITION, replace(COMMIT, run_id=run_id))
        for run_id in (alone, *backfilled, *stages)
    }
    assert run(platform, apply=True, keep_days=0, keep_runs=2).success
    held = lake.snapshots()["snapshot_id"].to_list()
    assert held == [by_run[stages[-1]], by_run[backfilled[-1]]]


def test_a_wrong_setting_fails_the_job_before_anything_is_done(platform: Platform) -> None:
    write_versions(platform.lake)
    before = platform.lake.snapshots()
    assert not run(platform, apply=True, keep_days=0, keep_runs=0).success
    assert not run(platform, apply=True, keep_versions=[99]).success
    assert platform.lake.snapshots().equals(before)


def test_the_weekly_schedule_is_off_and_would_apply(platform: Platform) -> None:
    schedule = platform.definitions().resolve_schedule_def("weekly_maintenance")
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    assert schedule.job_name == MAINTENANCE_JOB
    data = schedule.evaluate_tick(
        dg.build_schedule_context(instance=platform.instance)
    ).run_requests
    assert data is not None
    assert data[0].run_config == maintenance_run_config(apply=True)


def test_settings_come_from_variables_of_make() -> None:
    assert settings_of({"APPLY": "1", "KEEP_DAYS": ""}) == {}
    given = {"KEEP_DAYS": "7", "KEEP_VERSIONS": "12,57", "SAFE_HOURS": "2.5"}
    assert settings_of(given) == {"keep_days": 7.0, "keep_versions": [12, 57], "safe_hours": 2.5}
    with pytest.raises(ValidationError, match="keep_runs"):
        settings_of({"KEEP_RUNS": "0"})
    with pytest.raises(LakeError, match=r"KEEP_LAST=50 counted snapshots.*give KEEP_RUNS="):
        settings_of({"KEEP_LAST": "50"})


def test_make_maintain_prints_what_would_go_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEATURELAKE_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    assert run_maintenance.main({}) == 1
    lake = Lake(tmp_path / "lake")
    write_versions(lake)
    assert run_maintenance.main({"KEEP_DAYS": "0", "KEEP_RUNS": "2"}) == 0
    printed = capsys.readouterr().out
    assert "versions ended" in printed and "make maintain APPLY=1" in printed
    assert lake.snapshots()["snapshot_id"].min() == 0
    assert run_maintenance.main({"KEEP_LAST": "2"}) == 2
    assert "give KEEP_RUNS=" in " ".join(capsys.readouterr().out.split())
    assert run_maintenance.main({"KEEP_VERSIONS": "99"}) == 2
    assert "keep_versions names [99]" in capsys.readouterr().out


def test_bytes_are_given_in_the_unit_that_fits() -> None:
    assert [in_units(n) for n in (0, 999, 1000, 123_456_789)] == ["0 B", "999 B", "1 KB", "123 MB"]
