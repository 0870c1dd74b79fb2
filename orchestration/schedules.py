"""The nightly schedule of each study: the main job, at the cron time that the study gives.

A night while a run of the study is still going is skipped, with the reason. What changed is no
matter of the schedule: the main run finds it (orchestration/planning.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from orchestration.dead_runs import end_dead_runs
from orchestration.run_tags import MAIN_JOB, STUDY_TAG
from resources.study import Study, schedule_name

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
    def nightly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        going = next(unfinished_runs(context.instance, study.name), None)
        if going is not None:
            return dg.SkipReason(
                f"run {going.run_id} of study {study.name!r} is still {going.status.value.lower()}"
            )
        return dg.RunRequest(
            run_config=run_config(study.name, within_budget=True), tags={STUDY_TAG: study.name}
        )

    return nightly
