"""The daemon alone, without a webserver: nights come, find what changed, and never overlap."""

import math
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import dagster as dg
import pytest
from answering_endpoint import AnsweringEndpoint
from dagster._core.definitions.schedule_definition import ScheduleExecutionData
from dagster_servers import daemon, environment, instance_at, running, wait_for
from mini_study import write_study
from nightly_study import ASSETS, CALLS, NIGHTLY_STUDY
from pooled_job import new_home

from orchestration.run_tags import MAIN_JOB
from resources.lake import Lake
from resources.study_files import StudiesResource, schedule_name

pytestmark = pytest.mark.slow


def test_the_daemon_alone_runs_the_nights_one_at_a_time(tmp_path: Path, cache_folder: Path) -> None:
    new_home(tmp_path)
    nightly = {"cron": "* * * * *", "switch": "on"}
    write_study(tmp_path / "studies", **NIGHTLY_STUDY, nightly=nightly)
    lake = Lake(tmp_path / "lake")
    with AnsweringEndpoint() as endpoint, instance_at(tmp_path) as instance:
        variables = environment(
            tmp_path, cache_folder, OPENAI_BASE_URL=endpoint.url, OPENAI_API_KEY="sk-test"
        )

        def ended(at_least: int) -> list[dg.RunRecord]:
            records = instance.get_run_records(dg.RunsFilter(job_name=MAIN_JOB), ascending=True)
            over = [one for one in records if one.dagster_run.is_finished]
            return over if len(over) >= at_least else []

        with running(daemon(), variables=variables, folder=tmp_path):
            # A night is due every minute, and the first takes about as long or longer.
            (first, second, *_) = wait_for("the end of two nights", lambda: ended(2), 900)
        assert {first.dagster_run.status, second.dagster_run.status} == {
            dg.DagsterRunStatus.SUCCESS
        }, (tmp_path / "servers.log").read_text()[-4000:]
        assert first.end_time <= second.start_time
        assert first.dagster_run.run_config["ops"]["run_stage_jobs"]["config"] == {
            "study": "mini",
            "within_budget": True,
        }

        # Nothing changed in the second.
        assert len(endpoint.take_requests()) == CALLS
        night = lake.query(
            "SELECT decision, sum(llm_calls_made)::INT AS calls, sum(forward_tokens)::INT AS "
            "tokens, count(*)::INT AS n FROM run_ledger WHERE run_id = ? GROUP BY ALL",
            [second.dagster_run.run_id],
        )
        assert night.rows() == [("reused", 0, 0, ASSETS)]

        (state,) = [
            one
            for one in instance.all_instigator_state()
            if one.instigator_name == schedule_name("mini")
        ]
        ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id)
        assert not [tick.error for tick in ticks if tick.error]
        assert_one_at_a_time(instance)


def assert_one_at_a_time(instance: dg.DagsterInstance) -> None:
    """No main run began before the one that began before it had ended."""
    records = instance.get_run_records(dg.RunsFilter(job_name=MAIN_JOB))
    # A night that still goes on has no end yet, so nothing may have begun after it.
    nights = sorted(
        (one.start_time, one.end_time or math.inf, one.dagster_run.run_id)
        for one in records
        if one.start_time is not None
    )
    assert len(nights) >= 2
    overlaps = [(before, after) for before, after in pairwise(nights) if after[0] < before[1]]
    assert not overlaps


def test_a_night_while_the_last_one_goes_on_is_skipped_with_the_reason(
    tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_home(tmp_path)
    write_study(tmp_path / "studies", **NIGHTLY_STUDY)
    with instance_at(tmp_path) as instance:
        for name, value in environment(tmp_path, cache_folder).items():
            monkeypatch.setenv(name, value)
        from orchestration.definitions import build_definitions

        definitions = build_definitions()
        schedule = definitions.resolve_schedule_def(schedule_name("mini"))
        studies = StudiesResource(folder=str(tmp_path / "studies"))

        def tick(day: int) -> ScheduleExecutionData:
            with dg.build_schedule_context(
                instance, datetime(2026, 3, day, 2, tzinfo=UTC), resources={"studies": studies}
            ) as context:
                return schedule.evaluate_tick(context)

        (request,) = list(tick(day=1).run_requests or ())
        assert request.tags["featurelake/study"] == "mini"
        going = instance.create_run_for_job(
            definitions.resolve_job_def(MAIN_JOB),
            run_config=request.run_config,
            tags=request.tags,
            status=dg.DagsterRunStatus.STARTED,
        )
        skipped = tick(day=2)
        assert not skipped.run_requests
        assert skipped.skip_message == f"run {going.run_id} of study 'mini' is still started"
        instance.report_run_canceled(going)
        assert len(tick(day=3).run_requests or ()) == 1
