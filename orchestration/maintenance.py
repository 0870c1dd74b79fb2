"""The job `maintenance`: old versions end, small files are merged, what nothing needs is removed.

It belongs to the lake, not to a study. Launched as it is, it only says what would go; the weekly
schedule, which is off until it is switched on in the UI, does it. What is kept and how it is done:
resources/retention.py and resources/maintenance.py.
"""

from collections.abc import Collection, Mapping

import dagster as dg
from pydantic import Field

from assets.at_work import at_work
from orchestration.run_tags import MAIN_RUN_TAG, MAINTENANCE_JOB, ONE_AT_A_TIME_TAG
from resources.lake import LakeResource
from resources.maintenance import MaintenanceReport, maintain
from resources.retention import Retention

MAINTENANCE_OP = "maintain_lake"
# Runs that carry the same value of one of these were launched as one; the second is Dagster's own.
LAUNCH_TAGS = (MAIN_RUN_TAG, "dagster/backfill")
RUNS_AT_A_TIME = 500
UNITS = ("B", "KB", "MB", "GB", "TB")


class MaintenanceConfig(dg.Config):
    """What is kept, as in resources/retention.py, and whether anything is done about the rest."""

    apply: bool = Field(default=False, description="Do it; without, only say what would go")
    keep_days: float = Field(
        default=30.0,
        description="Versions that were current at any time since then are kept [days]",
    )
    keep_runs: int = Field(
        default=10, description="The last version of each of so many newest runs is kept"
    )
    keep_versions: list[int] = Field(default=[], description="Versions that are always kept")
    safe_hours: float = Field(
        default=48.0, description="Files go when nothing has needed them for so long [hours]"
    )

    def retention(self) -> Retention:
        return Retention(
            keep_days=self.keep_days,
            keep_runs=self.keep_runs,
            keep_versions=tuple(self.keep_versions),
            safe_hours=self.safe_hours,
        )


@dg.op(name=MAINTENANCE_OP, description="Expires versions and removes what no kept one needs.")
def maintain_lake(
    context: dg.OpExecutionContext, config: MaintenanceConfig, lake: LakeResource
) -> None:
    with at_work(context.instance, context.run_id, MAINTENANCE_OP):
        report = maintain(
            lake.open(),
            config.retention(),
            is_dry=not config.apply,
            larger_runs=lambda run_ids: larger_runs(context.instance, run_ids),
        )
    lines = [f"{what}: {count}, {size}. {note}" for what, count, size, note in report_rows(report)]
    for line in lines:
        context.log.info(line)
    context.add_output_metadata(
        {
            "is_dry": report.is_dry,
            "report": dg.MetadataValue.md("\n".join(f"- {line}" for line in lines)),
            "n_expired": len(report.expired),
            "n_bytes_removed": sum(
                step.n_bytes or 0 for step in report.steps if step.name.endswith("removed")
            ),
        }
    )


@dg.job(
    name=MAINTENANCE_JOB,
    executor_def=dg.in_process_executor,
    # Not beside a study: the queue lets one of these run at a time.
    tags={ONE_AT_A_TIME_TAG: MAINTENANCE_JOB},
    description="Ends old versions of the lake, merges small files and removes unneeded ones; "
    "without `apply` it only says what would go.",
)
def maintenance_job() -> None:
    maintain_lake()


def maintenance_run_config(**settings: object) -> dict:
    """Run config of the job with these settings of MaintenanceConfig."""
    return {"ops": {MAINTENANCE_OP: {"config": settings}}}


weekly_maintenance = dg.ScheduleDefinition(
    name="weekly_maintenance",
    job=maintenance_job,
    cron_schedule="0 5 * * 0",
    run_config=maintenance_run_config(apply=True),
    description="Maintenance every Sunday morning; off until it is switched on.",
)


def larger_runs(instance: dg.DagsterInstance, run_ids: Collection[str]) -> Mapping[str, str]:
    """Of these runs, those that a main run or a backfill made, with its id.

    Runs that the instance no longer knows are left out.
    """
    ordered = sorted(run_ids)
    found: dict[str, str] = {}
    for first in range(0, len(ordered), RUNS_AT_A_TIME):
        some = dg.RunsFilter(run_ids=ordered[first : first + RUNS_AT_A_TIME])
        for run in instance.get_runs(some):
            launches = [run.tags[tag] for tag in LAUNCH_TAGS if tag in run.tags]
            if launches:
                found[run.run_id] = launches[0]
    return found


def report_rows(report: MaintenanceReport) -> list[tuple[str, str, str, str]]:
    """What, how many, disk space and note of each step, in words."""
    return [
        (
            step.name,
            f"{step.n_items:,}",
            "" if step.n_bytes is None else in_units(step.n_bytes),
            step.note,
        )
        for step in report.steps
    ]


def in_units(n_bytes: float) -> str:
    """`12.3 MB`: bytes in the unit that fits, of 1,000 of the one before."""
    for unit in UNITS[:-1]:
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} {UNITS[-1]}"
