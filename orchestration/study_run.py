"""One run of the main job: goes through a study's partitions and makes those that need it.

Each partition is planned against the ledger as it is then, so that a rerun that gave the same
content upstream stops there. What nothing changed in is noted as reused, in one commit at the end;
what reads a partition that failed is skipped; past the budget what is left is noted and waits for
the next run: all of it once the time is up, else what asks the LLM and what reads that. Who stops
the run (Ctrl-C, terminate in the UI) while a partition is made means the rest, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import dagster as dg
from dagster._core.events import RunFailureReason

from assets.recipe import Spec
from orchestration.planning import Planned, Planner
from orchestration.recipes import recipe_of, specs_of
from orchestration.run_tags import IN_UI_TAGS, MAIN_RUN_TAG, STUDY_TAG
from orchestration.unreported import broken_runs, is_reported
from resources.call_budget import BUDGET_TAG, CallBudget
from resources.ledger import Entry
from resources.night_config import BudgetConfig
from resources.study import FitSpec, SiteFits, SiteSpec, Study

OVER_BUDGET = "over_budget"


@dataclass(frozen=True)
class StagePartition:
    """One run of a stage job."""

    job: str
    partition_key: str
    spec: Spec = field(compare=False)  # a study with groups has no hash

    def __str__(self) -> str:
        return f"{self.job} {self.partition_key}"

    def reads(self, other: StagePartition) -> bool:
        """Whether it reads what `other` writes."""
        if self.spec is other.spec or isinstance(self.spec, Study):
            return False
        if isinstance(other.spec, Study):
            return True
        if isinstance(other.spec, SiteSpec) and isinstance(self.spec, FitSpec):
            read = (self.spec.site, self.spec.input_site)
            return other.spec.key in [site.key for site in read if site is not None]
        # A comparison of fits goes on without those that failed.
        if isinstance(other.spec, SiteSpec) and isinstance(self.spec, SiteFits):
            return other.spec.key == self.spec.key
        return False


def partitions_of(study: Study) -> Iterator[StagePartition]:
    """Every run that a study takes, each after the ones it reads from."""
    for spec in specs_of(study):
        if isinstance(spec, Study):
            yield StagePartition("corpus_job", spec.name, spec)
        elif isinstance(spec, SiteSpec):
            yield StagePartition("activations_job", spec.key, spec)
        elif isinstance(spec, SiteFits):
            yield StagePartition("comparison_job", spec.key, spec)
        else:
            key = dg.MultiPartitionKey({"site": spec.site.key, "fit": spec.fit.key})
            yield StagePartition("features_job", str(key), spec)


class StudyRun:
    """The state of one run of the main job."""

    def __init__(
        self,
        context: dg.OpExecutionContext,
        study: Study,
        resolve_job: Callable[[str], dg.JobDefinition],
        planner: Planner,
        budget: BudgetConfig,
    ) -> None:
        self.context = context
        self.study = study
        self._resolve_job = resolve_job
        self._planner = planner
        self._ledger = planner.world.ledger
        minutes = budget.minutes
        self._budget = CallBudget(
            calls=budget.llm_calls,
            usd=budget.usd,
            deadline=None if minutes is None else time.time() + 60 * minutes,
        )
        self._noted: list[Entry] = []
        self._left: set[StagePartition] = set()
        self.failed: dict[StagePartition, str] = {}

    def run_all(self) -> dict[StagePartition, str]:
        """What failed, and why. What was decided about the rest is in the ledger."""
        partitions = list(partitions_of(self.study))
        try:
            for number, partition in enumerate(partitions, start=1):
                self._run_one(partition, f"{number} of {len(partitions)}: {partition}")
        finally:
            self._ledger.append(self._noted, run_id=self.context.run_id)
        counts = {d: sum(e.decision == d for e in self._noted) for d in ("reused", OVER_BUDGET)}
        self.context.log.info(
            "%d asset partitions reused, %d left for the next run", *counts.values()
        )
        return self.failed

    def _run_one(self, partition: StagePartition, title: str) -> None:
        planned = self._planner.partition(partition.spec)
        dirty = [one for one in planned if one.is_dirty]
        cause = next((other for other in self.failed if partition.reads(other)), None)
        if cause is not None:
            self.failed[partition] = f"not run, because {cause.job} failed"
            self._note(planned, "skipped", self.failed[partition])
            return
        unreported = self._unreported(partition, planned)
        if not dirty and not unreported:
            self._note(planned, "reused")
            return
        if (spent := self._budget.spent_because) is not None:
            affordable = self._affordable(partition, dirty)
            if len(affordable) < len(dirty):
                self._left.add(partition)
            self._note([one for one in planned if one not in affordable], OVER_BUDGET, spent)
            planned = dirty = affordable
            unreported = []
            if not dirty:
                return
        words = [f"{one.asset}: {one.reason}" for one in dirty]
        words += [f"{one.asset}: rows are there, to be reported" for one in unreported]
        self.context.log.info("%s: %s", title, "; ".join(words))
        to_run = [*dirty, *unreported]
        result = _only_assets(self._resolve_job(partition.job), to_run).execute_in_process(
            instance=self.context.instance,
            partition_key=partition.partition_key,
            # The runs say what they say where the main run says it (a terminal, or only the UI).
            run_config={"loggers": self.context.run.run_config.get("loggers", {})},
            tags={
                **IN_UI_TAGS,
                STUDY_TAG: self.study.name,
                MAIN_RUN_TAG: self.context.run_id,
                BUDGET_TAG: self._budget.to_tag(),
            },
            raise_on_error=False,
        )
        if _was_interrupted(result):
            self.context.instance.report_run_canceled(result.dagster_run, "Stopped")
            raise dg.DagsterExecutionInterruptedError(
                f"stopped at {partition}; what was made before stays, and the next run goes on"
            )
        self._planner.read_again(partition.spec)
        self._note([one for one in planned if one not in to_run], "reused")
        self._budget.spend(**self._ledger.spent_in(result.run_id))
        if (why := _why_failed(result)) is not None:
            self._note_failure(partition, dirty, result, why)

    def _note_failure(
        self,
        partition: StagePartition,
        dirty: list[Planned],
        result: dg.ExecuteInProcessResult,
        why: str,
    ) -> None:
        """What became of a stage's run without success: the budget stopped it, or it failed."""
        decisions = self._ledger.decisions_in(result.run_id)
        left = [one for one in dirty if one.asset not in decisions]
        stopped = [asset for asset, decision in decisions.items() if decision == OVER_BUDGET]
        if stopped:
            self._left.add(partition)
        # What does not wait for the LLM goes on beside it, and may fail.
        if stopped and "failed" not in decisions.values():
            self._note(left, OVER_BUDGET, f"left, as the budget was spent in {stopped[0]}")
            self.context.log.warning("%s: left for the next run: %s", partition, why)
            # A stop that was asked for is no failure: the UI shows the run as canceled, not red.
            self.context.instance.report_run_canceled(result.dagster_run, f"Stopped: {why}")
            return
        for one in left:
            failed_itself = why.startswith(f"{one.asset}: ")
            self._note(
                [one],
                "failed" if failed_itself else "skipped",
                why if failed_itself else f"not run, because of {why}",
            )
        self.failed[partition] = why
        self.context.log.error("%s failed: %s", partition, why)

    def _unreported(self, partition: StagePartition, planned: list[Planned]) -> list[Planned]:
        """What is current in the lake, by a run that was killed before Dagster knew."""
        return [
            one
            for one in planned
            if not one.is_dirty
            and one.before is not None
            and one.before.run_id in self._broken_runs
            and not is_reported(
                self.context.instance,
                [table.name for table in recipe_of(one.asset).tables],
                partition.partition_key,
                one.before,
            )
        ]

    @cached_property
    def _broken_runs(self) -> set[str]:
        entries = self._ledger.states(self.study.name).values()
        return broken_runs(self.context.instance, entries)

    def _affordable(self, partition: StagePartition, dirty: list[Planned]) -> list[Planned]:
        """What of a partition is made although the budget is spent."""
        if self._budget.is_over_time:
            return []
        if isinstance(partition.spec, SiteFits):
            fits = [left.spec for left in self._left if isinstance(left.spec, FitSpec)]
            if any(fit.site.key == partition.spec.key for fit in fits):
                return []
        return without_llm(dirty)

    def _note(self, planned: list[Planned], decision: str, reason: str | None = None) -> None:
        """Remember for the ledger; what is current is reused whatever stands in the way."""
        for one in planned:
            is_current = not one.is_dirty
            before = one.before
            self._noted.append(
                Entry(
                    study=self.study.name,
                    run_id=self.context.run_id,
                    asset=one.asset,
                    partition=one.partition,
                    decision="reused" if is_current else decision,
                    reason=one.reason if is_current or reason is None else reason,
                    fingerprint_before=None if before is None else before.fingerprint,
                    fingerprint=one.fingerprint,
                    rows_in=None if before is None else before.rows_out,
                    rows_out=None if before is None else before.rows_out,
                    rows_reused=before.rows_out if is_current and before else None,
                    rows_computed=0 if is_current else None,
                    forward_tokens=0,
                    llm_calls_made=0,
                    data_snapshot=None if before is None else before.data_snapshot,
                )
            )


def without_llm(planned: list[Planned]) -> list[Planned]:
    """Those of a partition's assets that neither ask the LLM nor read what waits for it."""
    waiting: set[str] = set()
    free = []
    for one in planned:
        recipe = recipe_of(one.asset)
        if recipe.uses_llm or waiting & {read.table.name for read in recipe.inputs}:
            waiting |= {table.name for table in recipe.tables}
        else:
            free.append(one)
    return free


def _only_assets(job: dg.JobDefinition, planned: list[Planned]) -> dg.JobDefinition:
    """The job with these assets and the checks of theirs that it has.

    Chosen by assets alone, Dagster would add every check there is of them, those of staleness too.
    """
    chosen = {dg.AssetKey(table.name) for one in planned for table in recipe_of(one.asset).tables}
    checks = job.asset_layer.asset_graph.asset_check_keys
    return job.get_subset(
        asset_selection=chosen,
        asset_check_selection={key for key in checks if key.asset_key in chosen},
    )


def _was_interrupted(result: dg.ExecuteInProcessResult) -> bool:
    """Whether a signal ended a stage's run; Dagster ends that run alone."""
    return any(
        event.job_failure_data.failure_reason is RunFailureReason.UNEXPECTED_TERMINATION
        for event in result.all_events
        if event.is_job_failure
    )


def _why_failed(result: dg.ExecuteInProcessResult) -> str | None:
    """Why a stage run failed, or which of its checks did; None where all is well."""
    if not result.success:
        for event in result.all_events:
            if event.is_step_failure and event.step_failure_data.error:
                error = event.step_failure_data.error
                cause = error.cause or error
                return f"{event.step_key}: {cause.message.strip()} (run {result.run_id})"
        return f"run {result.run_id} failed; its log in the UI says why"
    broken = [
        f"{check.asset_key.to_user_string()}: {check.check_name}"
        for check in result.get_asset_check_evaluations()
        if not check.passed and check.severity == dg.AssetCheckSeverity.ERROR
    ]
    return f"asset checks failed: {', '.join(broken)} (run {result.run_id})" if broken else None
