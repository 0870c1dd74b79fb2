"""The jobs: one for each kind of partition, and the main one that runs them over a whole study.

A Dagster job holds assets of one partitions definition, so there are three: `corpus_job` (a
study), `activations_job` (a site) and `features_job` (a fit at a site). `materialize_study` is the
job that the UI, the nightly schedule and `make demo` launch: it runs these three, in order, for
the partitions of one study in which something changed, as runs of their own on the same instance
(study_run.py). A partition that fails doesn't stop the others; the main run fails at its end and
names what failed.

Runs stay in one process (in-process executor), so that a model is loaded once.
"""

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import filelock
from pydantic import Field

from orchestration.partition_sync import sync_partitions
from orchestration.planning import Planner
from orchestration.run_tags import MAIN_JOB, ONE_AT_A_TIME_TAG, STUDY_TAG
from orchestration.study_run import StudyRun
from resources.lake import LakeResource
from resources.ledger import Ledger
from resources.model_resource import SubjectModelResource
from resources.study import BudgetConfig, StudiesResource, Study
from resources.world import WorldAtOnce

corpus_job = dg.define_asset_job(
    "corpus_job",
    selection=dg.AssetSelection.groups("corpus"),
    executor_def=dg.in_process_executor,
    description="Documents of one study.",
)
activations_job = dg.define_asset_job(
    "activations_job",
    selection=dg.AssetSelection.groups("activations"),
    executor_def=dg.in_process_executor,
    description="Tokens and activations of one site.",
)
features_job = dg.define_asset_job(
    "features_job",
    selection=dg.AssetSelection.groups(
        "factorization",
        "faithfulness",
        "evidence",
        "labels",
        "detection",
        "steering",
        "hierarchy",
        "catalogue",
    ),
    executor_def=dg.in_process_executor,
    description="Everything from the factorization of one site to its catalogue rows, for one fit.",
)
STAGE_JOBS = (corpus_job, activations_job, features_job)


class MainJobConfig(dg.Config):
    """Which study the main job materializes."""

    study: str = Field(default="demo", description="Name of a study in the folder of studies")
    within_budget: bool = Field(
        default=False, description="Stop at the study's `nightly.budget`, as nightly runs do"
    )


def build_main_job(resolve_job: Callable[[str], dg.JobDefinition]) -> dg.JobDefinition:
    """The main job; `resolve_job` gives a stage job by name (known once definitions are built)."""

    @dg.op(description="Runs every stage job over every partition of one study.")
    def run_stage_jobs(
        context: dg.OpExecutionContext,
        config: MainJobConfig,
        studies: StudiesResource,
        lake: LakeResource,
        subject_models: SubjectModelResource,
    ) -> None:
        study = studies.study(config.study)
        readable, problems = studies.readable()
        sync_partitions(context.instance, readable, may_remove=not problems)
        Path(lake.root).mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(Path(lake.root) / f"study-{study.name}.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise dg.Failure(
                f"study {study.name!r} is being materialized by another run on the lake in "
                f"{lake.root}; wait for it, or stop it in the UI, then launch this run again"
            ) from None
        try:
            _end_dead_runs(context, study)
            budget = study.nightly.budget if config.within_budget else BudgetConfig()
            world = WorldAtOnce(Ledger(lake.open()), studies, subject_models)
            run = StudyRun(context, study, resolve_job, Planner(world), budget)
            failed = run.run_all()
        finally:
            lock.release()
        if failed:
            raise dg.Failure(
                f"{len(failed)} of the study's partitions failed: "
                + "; ".join(f"{partition}: {why}" for partition, why in failed.items())
            )

    @dg.job(
        name=MAIN_JOB,
        executor_def=dg.in_process_executor,
        tags={ONE_AT_A_TIME_TAG: MAIN_JOB},
        description="Materializes one study from corpus to catalogue. Config: the study's name.",
    )
    def main_job() -> None:
        run_stage_jobs()

    return main_job


def _end_dead_runs(context: dg.OpExecutionContext, study: Study) -> None:
    """Mark as failed what a killed process left as started: this run has the study's lock now."""
    unfinished = dg.RunsFilter(
        tags={STUDY_TAG: study.name},
        statuses=[dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED],
    )
    for run in context.instance.get_runs(unfinished):
        if run.run_id != context.run_id:
            context.instance.report_run_failed(run, "the process of this run is gone")
            context.log.warning("run %s of %s had been killed", run.run_id, run.job_name)
