"""The nightly schedule of each study: the main job, at the cron time that the study gives.

A night while a run of the study is still going is skipped, with the reason. So is one that the
study's file, changed after the code was loaded, does not want any more (night_switches.py). What
changed in the data is no matter of the schedule: the main run finds it (planning.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.storage.tags import SCHEDULE_NAME_TAG, SCHEDULED_EXECUTION_TIME_TAG

from orchestration.dead_runs import end_dead_runs
from orchestration.night_switches import switched_by_hand, why_tick_is_void
from orchestration.run_tags import MAIN_JOB, STUDY_TAG
from resources.study import Study
from resources.study_files import StudiesResource, StudyError, schedule_name

UNFINISHED = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
OP = "run_stage_jobs"
NO_LIMITS: Mapping[str, float] = {}


def run_config(
    study_name: str, *, within_budget: bool = False, limits: Mapping[str, float] = NO_LIMITS
) -> dict:
    """Run config of the main job for one study; `limits` as MainJobConfig names them."""
    config = {"study": study_name, "within_budget": within_budget, **limits}
    return {"ops": {OP: {"config": config}}}


def nightly_schedules(
    studies: Sequence[Study], main_job: dg.JobDefinition
) -> list[dg.ScheduleDefinition]:
    """One schedule a study; `nightly.switch: on` in the study file starts it by itself."""
    return [_nightly_schedule(study, main_job) for study in studies]


def night(
    instance: dg.DagsterInstance, study_name: str, tick: datetime
) -> dg.RunRequest | dg.SkipReason:
    """The run of a study's night, or why there is none.

    It carries the tags by which Dagster finds the run of a schedule's tick, whoever asks for it:
    so no tick gets two, and the UI lists it with the schedule's.
    """
    going = next(unfinished_runs(instance, study_name), None)
    if going is not None:
        return dg.SkipReason(
            f"run {going.run_id} of study {study_name!r} is still {going.status.value.lower()}"
        )
    of_tick = {
        SCHEDULE_NAME_TAG: schedule_name(study_name),
        SCHEDULED_EXECUTION_TIME_TAG: tick.astimezone(UTC).isoformat(),
    }
    for run in instance.get_runs(dg.RunsFilter(tags=of_tick), limit=1):
        return dg.SkipReason(f"the night of {tick:%Y-%m-%d %H:%M %Z} had its run, {run.run_id}")
    return dg.RunRequest(
        run_key=" ".join(of_tick.values()),
        run_config=run_config(study_name, within_budget=True),
        tags={STUDY_TAG: study_name, **of_tick},
    )


def unfinished_runs(instance: dg.DagsterInstance, study_name: str) -> Iterator[dg.DagsterRun]:
    """The main runs of a study that wait or go on; those that were killed are ended first."""
    end_dead_runs(instance)
    for run in instance.get_runs(dg.RunsFilter(job_name=MAIN_JOB, statuses=list(UNFINISHED))):
        if study_of_run(run) == study_name:
            yield run


def study_of_run(run: dg.DagsterRun) -> str | None:
    """The study of a main run: by its tag, or by its config as the UI's launchpad gives it."""
    if STUDY_TAG in run.tags:
        return run.tags[STUDY_TAG]
    config: Any = run.run_config
    return config.get("ops", {}).get(OP, {}).get("config", {}).get("study")


def _nightly_schedule(study: Study, main_job: dg.JobDefinition) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=schedule_name(study.name),
        job=main_job,
        cron_schedule=study.nightly.cron,
        execution_timezone=study.nightly.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING
        if study.nightly.switch == "on"
        else dg.DefaultScheduleStatus.STOPPED,
        description=f"Makes what changed of the study {study.name!r} ({MAIN_JOB}), in its budget.",
    )
    def nightly(
        context: dg.ScheduleEvaluationContext, studies: StudiesResource
    ) -> dg.RunRequest | dg.SkipReason:
        try:
            filed = studies.study(study.name).nightly
        except StudyError as error:
            return dg.SkipReason(str(error))
        by_hand = switched_by_hand(context.instance).get(schedule_name(study.name))
        if why := why_tick_is_void(filed, study.nightly, by_hand):
            return dg.SkipReason(why)
        return night(context.instance, study.name, context.scheduled_execution_time)

    return nightly
