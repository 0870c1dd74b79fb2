"""The jobs: one for each kind of partition, and the main one that runs them over a whole study.

A Dagster job holds assets of one partitions definition: `corpus_job` (a study), `activations_job`
(a site), `features_job` (a fit at a site) and `comparison_job` (a site, after its fits).
`materialize_study` is the job that the UI, the nightly schedule and `make demo` launch: it runs
these, in order, for the partitions of one study in which something changed, as runs of their own
on the same instance (study_run.py). A partition that fails doesn't stop the others; the main run
fails at its end and names what failed.

The main run and what it makes stay in one process, so that a model is loaded once. So do stage
jobs that are launched by themselves, unless their launch asks for a process a step:

    execution: {config: {multiprocess: {max_concurrent: 2}}}

Then, as over all runs of an instance, steps that hold a subject model take turns (the limit of
their pool is in dagster.yaml).
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import filelock
from pydantic import Field

from assets.at_work import at_work
from orchestration.data_dictionary import all_tables
from orchestration.dead_runs import looking_for_dead_runs
from orchestration.gold_view import REASON, leave_gold_view, unnamed
from orchestration.partition_sync import forget_removed_studies, sync_partitions
from orchestration.planning import Planner
from orchestration.retries import try_again
from orchestration.run_tags import MAIN_JOB, ONE_AT_A_TIME_TAG, STUDY_TAG
from orchestration.staleness import up_to_date
from orchestration.study_lock import study_lock
from orchestration.study_run import StudyRun
from resources.lake import LakeResource
from resources.ledger import Ledger
from resources.model_resource import SubjectModelResource
from resources.night_config import BudgetConfig
from resources.study import Study
from resources.study_files import StudiesResource
from resources.world import WorldAtOnce


def _made_in(*stages: str) -> dg.AssetSelection:
    """The assets of stages with their checks, but not whether they are up to date."""
    return dg.AssetSelection.groups(*stages) - dg.AssetSelection.checks(up_to_date)


IN_ONE_PROCESS = {"execution": {"config": {"in_process": {}}}}

corpus_job = dg.define_asset_job(
    "corpus_job",
    selection=_made_in("corpus"),
    executor_def=dg.multi_or_in_process_executor,
    config=IN_ONE_PROCESS,
    description="Documents of one study.",
)
activations_job = dg.define_asset_job(
    "activations_job",
    selection=_made_in("activations"),
    executor_def=dg.multi_or_in_process_executor,
    config=IN_ONE_PROCESS,
    description="Tokens and activations of one site.",
)
features_job = dg.define_asset_job(
    "features_job",
    selection=_made_in(
        "factorization",
        "faithfulness",
        "evidence",
        "labels",
        "detection",
        "steering",
        "ablation",
        "hierarchy",
        "catalogue",
    ),
    executor_def=dg.multi_or_in_process_executor,
    config=IN_ONE_PROCESS,
    description="Everything from the factorization of one site to its catalogue rows, for one fit.",
)
comparison_job = dg.define_asset_job(
    "comparison_job",
    selection=_made_in("comparison"),
    executor_def=dg.multi_or_in_process_executor,
    config=IN_ONE_PROCESS,
    description="All fits of one site beside each other, after they are made.",
)
ratings_job = dg.define_asset_job(
    "ratings_job",
    selection=_made_in("ratings"),
    executor_def=dg.in_process_executor,
    description="What people rated for one study, from its folder of sheets (make ratings).",
)
STAGE_JOBS = (corpus_job, activations_job, features_job, comparison_job, ratings_job)


class MainJobConfig(dg.Config):
    """Which study the main job materializes."""

    study: str = Field(default="demo", description="Name of a study in the folder of studies")
    within_budget: bool = Field(
        default=False, description="Stop at the study's `nightly.budget`, as nightly runs do"
    )
    llm_calls: int | None = Field(default=None, ge=0, description="Stop at so many LLM calls")
    usd: float | None = Field(
        default=None, ge=0, description="Stop at so many USD (needs the prices in the study's llm)"
    )
    minutes: float | None = Field(
        default=None, ge=0, description="Begin nothing more after so many minutes"
    )
    retry: bool = Field(default=False, description="Try again also what failed three times")

    def budget(self, study: Study) -> BudgetConfig:
        """What the run may cost: each limit given here stands before the study's.

        Raises ValueError for one in USD where the LLM has no prices.
        """
        base = study.nightly.budget if self.within_budget else BudgetConfig()
        given = {name: getattr(self, name) for name in BudgetConfig.model_fields}
        budget = base.model_copy(update={k: v for k, v in given.items() if v is not None})
        study.check_budget(budget)
        return budget


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
        if STUDY_TAG not in context.run.tags:
            context.instance.add_run_tags(context.run_id, {STUDY_TAG: study.name})
        readable, problems = studies.readable()
        sync_partitions(context.instance, readable, may_remove=not problems)
        with at_work(context.instance, context.run_id, MAIN_JOB):
            with (
                _only_run_of(study.name, Path(lake.root)),
                looking_for_dead_runs(context.instance),
            ):
                lake.open().ensure_tables(all_tables())
                ledger = Ledger(lake.open())
                if config.retry:
                    n_again = try_again(ledger, study.name, context.run_id)
                    context.log.info("%d asset partitions are tried again", n_again)
                world = WorldAtOnce(ledger, studies, subject_models)
                run = StudyRun(context, study, resolve_job, Planner(world), config.budget(study))
                failed = run.run_all()
                for entry in unnamed(ledger.states(), readable, {study.name}):
                    n_rows = leave_gold_view(ledger, entry, context.run_id)
                    context.log.info(
                        "%s: %d gold rows removed, %s", entry.partition, n_rows, REASON
                    )
            for line in forget_removed_studies(context.instance, studies, lake, context.run_id):
                context.log.info(line)
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


@contextlib.contextmanager
def _only_run_of(study: str, lake_root: Path) -> Iterator[None]:
    """Hold the study's lock on a lake; raises dagster.Failure where another run does."""
    lock = study_lock(study, lake_root)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise dg.Failure(
            f"study {study!r} is being materialized by another run on the lake in "
            f"{lake_root}; wait for it, or stop it in the UI, then launch this run again"
        ) from None
    try:
        yield
    finally:
        lock.release()
