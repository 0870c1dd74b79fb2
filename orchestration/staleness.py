"""Staleness in the UI: one check an asset, `up_to_date`, that names what a run would make anew.

Dagster's own staleness does not look into partitions, so the planner answers: a sensor plans every
few minutes, and where the answer is another one than before it launches `up_to_date_job`, whose
checks warn at every asset with a partition to be computed, with the reasons.
"""

import hashlib
from collections.abc import Iterable, Iterator

import dagster as dg

from orchestration.planning import Planned, Planner
from orchestration.recipes import OF_RUNS
from resources.lake import LakeResource
from resources.ledger import Ledger
from resources.model_resource import SubjectModelResource
from resources.study_files import StudiesResource
from resources.world import WorldAtOnce

CHECK = "up_to_date"
SECONDS_BETWEEN = 300
MOST_SHOWN = 20


def stale_partitions(
    studies: StudiesResource, lake: LakeResource, subject_models: SubjectModelResource
) -> list[Planned]:
    """Every asset partition that a run would, or might, make anew, of studies that were run.

    What was never run is not stale: studies lie in the folder for others to run, too.
    """
    world = WorldAtOnce(Ledger(lake.open()), studies, subject_models)
    was_run = {entry.study for entry in world.states().values()}
    planner = Planner(world)
    readable, _ = studies.readable()
    begun = [study for study in readable if study.name in was_run]
    return [one for study in begun for one in planner.study(study) if one.is_dirty]


@dg.multi_asset_check(
    name=CHECK,
    specs=[
        dg.AssetCheckSpec(
            CHECK, asset=table.name, description="no partition would be made anew by a run now"
        )
        for recipe in OF_RUNS
        for table in recipe.tables
    ],
    can_subset=True,
)
def up_to_date(
    context: dg.AssetCheckExecutionContext,
    studies: StudiesResource,
    lake: LakeResource,
    subject_models: SubjectModelResource,
) -> Iterator[dg.AssetCheckResult]:
    stale = stale_partitions(studies, lake, subject_models)
    for recipe in OF_RUNS:
        of_asset = [one for one in stale if one.asset == recipe.name]
        certain = [one for one in of_asset if one.decision != "maybe"]
        chosen = {key.asset_key.to_user_string() for key in context.selected_asset_check_keys}
        for table in recipe.tables:
            if table.name not in chosen:
                continue
            yield dg.AssetCheckResult(
                asset_key=table.name,
                check_name=CHECK,
                passed=not of_asset,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={
                    "n_to_compute": len(certain),
                    "n_waiting_for_inputs": len(of_asset) - len(certain),
                    "partitions": dg.MetadataValue.md(_as_markdown(of_asset)),
                },
            )


up_to_date_job = dg.define_asset_job(
    "up_to_date_job",
    selection=dg.AssetSelection.checks(up_to_date),
    executor_def=dg.in_process_executor,
    description="Says at each asset which partitions a run would make anew, and why.",
)


@dg.sensor(
    job=up_to_date_job,
    minimum_interval_seconds=SECONDS_BETWEEN,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Plans all studies, and has the assets' staleness shown where it has changed.",
)
def staleness(
    context: dg.SensorEvaluationContext,
    studies: StudiesResource,
    lake: LakeResource,
    subject_models: SubjectModelResource,
) -> dg.SkipReason | dg.SensorResult:
    stale = stale_partitions(studies, lake, subject_models)
    digest = _digest(stale)
    if digest == context.cursor:
        return dg.SkipReason(f"{len(stale)} asset partitions to be made anew, as before")
    return dg.SensorResult(run_requests=[dg.RunRequest()], cursor=digest)


def _digest(stale: Iterable[Planned]) -> str:
    lines = (f"{one.asset} {one.partition} {one.decision} {one.reason}" for one in stale)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _as_markdown(planned: list[Planned]) -> str:
    lines = [f"- {one.partition}: {one.reason}" for one in planned[:MOST_SHOWN]]
    if len(planned) > MOST_SHOWN:
        lines.append(f"- {len(planned) - MOST_SHOWN} more; `make plan` shows them")
    return "\n".join(lines) or "all up to date"
