"""The jobs: one for each kind of partition, and the main one that runs them over a whole study.

A Dagster job holds assets of one partitions definition, so there are three: `corpus_job` (a
study), `activations_job` (a site) and `features_job` (a fit at a site). `materialize_study` is the
job that the UI, the nightly schedule and `make demo` launch: it runs these three, in order, for
each partition of one study, as runs of their own on the same instance. A partition that fails
doesn't stop the others; the main run fails at its end and names what failed.

Runs stay in one process (in-process executor), so that a model is loaded once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import filelock
from pydantic import Field

from orchestration.partition_sync import sync_partitions
from resources.lake import LakeResource
from resources.study import FitSpec, StudiesResource, Study

MAIN_JOB = "materialize_study"
STUDY_TAG = "featurelake/study"
MAIN_RUN_TAG = "featurelake/main_run"
# The UI lists a job's runs by this tag, which its own launches carry; runs in process need it set.
IN_UI_TAGS = {".dagster/repository": "__repository__@featurelake"}
# orchestration/dagster.yaml lets the queue start one run with this tag at a time.
ONE_AT_A_TIME_TAG = "featurelake/one_at_a_time"

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


@dataclass(frozen=True)
class StagePartition:
    """One run of a stage job."""

    job: str
    partition_key: str
    # Partitions of activations_job whose tables it reads.
    sites_read: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.job} {self.partition_key}"


def partitions_of(study: Study) -> Iterator[StagePartition]:
    """Every run that a study takes, each after the ones it reads from."""
    yield StagePartition(corpus_job.name, study.name)
    for site in study.sites():
        yield StagePartition(activations_job.name, site.key)
    for site in study.sites():
        for fit in study.fits_at(site.kind):
            key = dg.MultiPartitionKey({"site": site.key, "fit": fit.key})
            read = (site, FitSpec(site, fit).input_site)
            yield StagePartition(
                features_job.name, str(key), tuple(one.key for one in read if one is not None)
            )


def depends_on(partition: StagePartition, other: StagePartition) -> bool:
    """Whether `partition` reads what `other` writes."""
    if other.job == corpus_job.name:
        return partition.job != corpus_job.name
    if other.job == activations_job.name:
        return other.partition_key in partition.sites_read
    return False


def build_main_job(resolve_job: Callable[[str], dg.JobDefinition]) -> dg.JobDefinition:
    """The main job; `resolve_job` gives a stage job by name (known once definitions are built)."""

    @dg.op(description="Runs every stage job over every partition of one study.")
    def run_stage_jobs(
        context: dg.OpExecutionContext,
        config: MainJobConfig,
        studies: StudiesResource,
        lake: LakeResource,
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
            failed = _run_all(context, study, resolve_job)
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


def _run_all(
    context: dg.OpExecutionContext, study: Study, resolve_job: Callable[[str], dg.JobDefinition]
) -> dict[StagePartition, str]:
    failed: dict[StagePartition, str] = {}
    partitions = list(partitions_of(study))
    # The runs say what they say where the main run says it (a terminal, or only the UI).
    loggers = {"loggers": context.run.run_config.get("loggers", {})}
    for number, partition in enumerate(partitions, start=1):
        cause = next((other for other in failed if depends_on(partition, other)), None)
        if cause is not None:
            failed[partition] = f"not run, because {cause.job} failed"
            continue
        context.log.info("%d of %d: %s", number, len(partitions), partition)
        result = resolve_job(partition.job).execute_in_process(
            instance=context.instance,
            partition_key=partition.partition_key,
            run_config=loggers,
            tags={**IN_UI_TAGS, STUDY_TAG: study.name, MAIN_RUN_TAG: context.run_id},
            raise_on_error=False,
        )
        broken = [
            f"{check.asset_key.to_user_string()}: {check.check_name}"
            for check in result.get_asset_check_evaluations()
            if not check.passed and check.severity == dg.AssetCheckSeverity.ERROR
        ]
        if not result.success:
            failed[partition] = _why(result)
        elif broken:
            failed[partition] = f"asset checks failed: {', '.join(broken)} (run {result.run_id})"
        if partition in failed:
            context.log.error("%s failed: %s", partition, failed[partition])
    return failed


def _why(result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_events:
        if event.is_step_failure and event.step_failure_data.error:
            error = event.step_failure_data.error
            cause = error.cause or error
            return f"{event.step_key}: {cause.message.strip()} (run {result.run_id})"
    return f"run {result.run_id} failed; its log in the UI says why"
