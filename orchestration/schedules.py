"""The nightly schedule of each study: the main job, at the cron time that the study gives."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from orchestration.run_tags import MAIN_JOB, STUDY_TAG
from resources.study import Study, schedule_name


def run_config(study_name: str, *, within_budget: bool = False) -> dict:
    """Run config of the main job for one study."""
    config = {"study": study_name, "within_budget": within_budget}
    return {"ops": {"run_stage_jobs": {"config": config}}}


def nightly_schedules(
    studies: Sequence[Study], main_job: dg.JobDefinition
) -> list[dg.ScheduleDefinition]:
    """One schedule a study; `nightly.switch: on` in the study file starts it by itself."""
    return [
        dg.ScheduleDefinition(
            name=schedule_name(study.name),
            job=main_job,
            cron_schedule=study.nightly.cron,
            execution_timezone=study.nightly.timezone,
            run_config=run_config(study.name, within_budget=True),
            tags={STUDY_TAG: study.name},
            default_status=dg.DefaultScheduleStatus.RUNNING
            if study.nightly.switch == "on"
            else dg.DefaultScheduleStatus.STOPPED,
            description=f"Re-materializes the study {study.name!r} ({MAIN_JOB}).",
        )
        for study in studies
    ]
