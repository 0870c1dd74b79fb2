"""What every asset does around its science: know its partition, write its tables, report.

A stage's definitions.py declares its assets (asset_specs.py), opens a `StageRun`, calls pure
functions, and hands the frames to `StageRun.write`, which commits them in one snapshot and yields
one materialization a table (row counts, snapshot, plots, cost) with its checks. What Dagster is
told of a table is table_results.py, the models that are asked run_models.py.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from assets.at_work import at_work
from assets.labels.config import LlmRole
from assets.ledger.costs import costs_in, rows_to_retry
from assets.ledger.reasons import NOTHING_CHANGED
from assets.ledger.tables import RUN_LEDGER
from assets.partition_state import PartitionState
from assets.partitions import STUDIES
from assets.recipe import (
    Recipe,
    Spec,
    lake_partition,
    partition_text,
    study_of,
)
from assets.run_models import RunModels
from assets.shared.content_hash import column_versions
from assets.shared.schema import Table
from assets.stored_fits import StoredFit, fitted_row, stored_activations, stored_fit
from assets.table_results import table_results
from assets.written_rows import n_rows_kept
from resources.call_budget import BudgetSpent
from resources.chat_resource import ChatResource
from resources.lake import Lake, LakeResource
from resources.lake_commit import Commit
from resources.ledger import Entry, Ledger, ledger_frame
from resources.model_resource import SubjectModelResource
from resources.study import FitSpec, SiteFits, SiteSpec, Study
from resources.study_files import StudiesResource
from resources.world import LakeWorld

if TYPE_CHECKING:
    from assets.activations.shards import ActivationReader
    from resources.chat_model import ChatModel
    from resources.subject_model import SubjectModel


class StageRun:
    """One materialization of a recipe's tables for one partition.

    `materialize(make)` reports the rows that are there where nothing changed, and else runs `make`,
    which ends in `write`. Either way the ledger gets its row.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        recipe: Recipe,
        lake: LakeResource,
        studies: StudiesResource,
        subject_models: SubjectModelResource | None = None,
        chat: ChatResource | None = None,
    ) -> None:
        self.context = context
        self.recipe = recipe
        self.lake: Lake = lake.open()
        self.log: logging.Logger = context.log
        self.study_folder = Path(studies.folder)
        self._studies = studies
        self._started = time.monotonic()
        self._ledger = Ledger(self.lake)
        self._models = RunModels(context, self._ledger, subject_models, chat)
        self.spec: Spec = self._spec()
        self.partition = partition_text(self.spec)
        self.state = PartitionState(
            recipe, self.spec, LakeWorld(self._ledger, studies, subject_models)
        )

    def _spec(self) -> Spec:
        keys = self.context.partition_key
        if isinstance(keys, dg.MultiPartitionKey):
            return self._studies.fit(keys.keys_by_dimension["site"], keys.keys_by_dimension["fit"])
        partitions = self.context.assets_def.partitions_def
        if partitions == STUDIES:
            return self._studies.study(keys)
        site = self._studies.site(keys)
        return SiteFits(site) if self.recipe.compares_fits else site

    def study(self) -> Study:
        assert isinstance(self.spec, Study)
        return self.spec

    def site(self) -> SiteSpec:
        assert isinstance(self.spec, SiteSpec)
        return self.spec

    def fit(self) -> FitSpec:
        assert isinstance(self.spec, FitSpec)
        return self.spec

    def site_fits(self) -> list[FitSpec]:
        """The fits that a partition compares."""
        assert isinstance(self.spec, SiteFits)
        return self.spec.fits()

    def subject(self) -> "SubjectModel":
        """The subject model of the partition, loaded."""
        assert not isinstance(self.spec, Study)
        site = self.spec if isinstance(self.spec, SiteSpec) else self.spec.site
        return self._models.subject(site)

    def chat_model(
        self, role: LlmRole, on_progress: Callable[[int, int], None] | None = None
    ) -> "ChatModel":
        """The study's LLM of a role, within what is left of the run's budget."""
        assert role in self.recipe.llms
        return self._models.chat_model(study_of(self.spec), role, on_progress)

    def materialize(
        self, make: "Callable[[StageRun], Iterator[dg.MaterializeResult]]"
    ) -> Iterator[dg.MaterializeResult]:
        """`make(self)`, unless nothing that it depends on has changed."""
        if self.state.is_current:
            rows = {"rows_out": self.state.rows_before, "rows_reused": self.state.rows_before}
            entry = self._entry("reused", NOTHING_CHANGED, **rows, rows_computed=0)
            self._ledger.append([entry], run_id=self.context.run_id)
            yield from self.report_unchanged()
            return
        self.log.info("%s: made because: %s", self.recipe.name, self.state.reason)
        try:
            self._models.stop_after_the_last_minute()
            with at_work(self.context.instance, self.context.run_id, self.recipe.name):
                put_back = self.state.rows_to_put_back()
                yield from make(self) if put_back is None else self._put_back(put_back)
        except BudgetSpent as error:
            self._record("over_budget", error)
            raise
        except Exception as error:
            self._record("failed", error)
            raise
        finally:
            self._models.let_go()

    def _record(self, decision: str, error: Exception) -> None:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        reason = f"{self.state.reason}; {first_line}"
        entry = self._entry(decision, reason, **self._models.llm_costs())
        self._ledger.append([entry], run_id=self.context.run_id)

    def fitted_row(self, spec: FitSpec) -> dict[str, Any]:
        """The fit's row of `factorizations` (stored_fits.py)."""
        return fitted_row(self.lake, spec)

    def fitted(self, spec: FitSpec) -> StoredFit:
        """The fit that a later stage goes on from (stored_fits.py)."""
        return stored_fit(self.lake, spec)

    def activations(self, site: SiteSpec) -> "ActivationReader":
        """A site's activations, read shard by shard when asked."""
        return stored_activations(self.lake, site)

    def commit(
        self,
        frames: Mapping[Table, pl.DataFrame],
        side_frames: Mapping[Table, pl.DataFrame] | None = None,
        entry: Entry | None = None,
    ) -> int:
        """Commit the partition's rows without reporting a materialization; the snapshot's id.

        `entry` goes to the ledger in the same snapshot.
        """
        partition = {**lake_partition(self.spec), "stage": self.recipe.stage}

        def ledger_rows(snapshot: int) -> dict[Table, pl.DataFrame]:
            entries = [] if entry is None else [replace(entry, data_snapshot=snapshot)]
            return {RUN_LEDGER: ledger_frame(entries)}

        return self.lake.replace(
            {**frames, **(side_frames or {})},
            partition,
            Commit(
                asset=", ".join(table.name for table in frames),
                partition=self.partition,
                run_id=self.context.run_id,
                fingerprint=self.state.fingerprint,
            ),
            appended=ledger_rows,
        )

    def keep(self, tables: Sequence[Table]) -> Iterator[dg.MaterializeResult]:
        """Report the rows that are in the lake as what these parts make, without writing them.

        For a stage that finds by itself that what changed upstream does not matter to it, and that
        has all its rows (`has_all_rows`).
        """
        partition = lake_partition(self.spec)
        frames = {
            table: self.lake.read(table, {name: partition[name] for name in table.partition_by})
            for table in tables
        }
        entry = self._entry(
            "reused",
            f"{self.state.reason}: of no effect here",
            # As `write` has them: without the columns of the partition.
            versions={
                t.name: column_versions(f.drop(t.partition_by), t) for t, f in frames.items()
            },
            rows_out=sum(map(len, frames.values())),
            rows_reused=sum(map(len, frames.values())),
            rows_computed=0,
            rows_to_retry=0,
            data_snapshot=self.lake.snapshot_of(
                tables[0], {name: partition[name] for name in tables[0].partition_by}
            ),
        )
        self._ledger.append([entry], run_id=self.context.run_id)
        yield from self._report({table: None for table in tables}, entry)

    def report_unchanged(self) -> Iterator[dg.MaterializeResult]:
        """Report the rows that are in the lake: nothing they depend on has changed."""
        assert self.state.before is not None
        self.log.info("%s: %s rows reused", self.recipe.name, self.state.rows_before)
        yield from self._report({table: None for table in self.recipe.tables}, self.state.before)

    def write(
        self,
        frames: Mapping[Table, pl.DataFrame],
        *,
        metadata: Mapping[str, Mapping[str, Any]] | None = None,
        side_frames: Mapping[Table, pl.DataFrame] | None = None,
        tried: Mapping[str, int | None] | None = None,
    ) -> Iterator[dg.MaterializeResult]:
        """Commit `frames` (and `side_frames`, which are no assets) and report each table.

        `metadata` maps a table's name to what its materialization shows; the ledger adds up the
        costs in it (`COSTS`). `tried` is the ledger's count of tries where it is known already.
        """
        n_rows = sum(map(len, frames.values()))
        partition = lake_partition(self.spec)
        is_first = self.state.before is None
        n_kept = 0 if is_first else n_rows_kept(self.lake, frames, partition)
        costs = costs_in((metadata or {}).values())
        if tried is None:
            n_to_retry = rows_to_retry(frames.values(), costs)
            attempt = self.state.attempt_with(n_to_retry)
            tried = {"rows_to_retry": n_to_retry, "attempt": attempt}
        entry = self._entry(
            "computed",
            self.state.reason,
            versions={t.name: column_versions(f, t) for t, f in frames.items()},
            rows_out=n_rows,
            rows_reused=n_kept,
            rows_computed=None if n_kept is None else n_rows - n_kept,
            **{**tried, **costs, **self._models.llm_costs()},
        )
        snapshot = self.commit(frames, side_frames, entry)
        yield from self._report(frames, replace(entry, data_snapshot=snapshot), metadata)

    def _put_back(self, frames: Mapping[Table, pl.DataFrame]) -> Iterator[dg.MaterializeResult]:
        """Commit rows that were gone; how often they were tried stays as it was."""
        before = self.state.before
        assert before is not None
        yield from self.write(
            frames, tried={"rows_to_retry": before.rows_to_retry, "attempt": before.attempt}
        )

    def _entry(self, decision: str, reason: str, **figures: Any) -> Entry:
        seconds = round(time.monotonic() - self._started, 3)
        run_id = self.context.run_id
        return self.state.entry(run_id, decision, reason, seconds=seconds, **figures)

    def _report(
        self,
        frames: Mapping[Table, pl.DataFrame | None],
        entry: Entry,
        metadata: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Iterator[dg.MaterializeResult]:
        """One result a table; a frame of None stands for rows that were there before."""
        broken = yield from table_results(
            frames,
            entry,
            metadata or {},
            lake=self.lake,
            state=self.state,
            log=self.log,
            started=self._started,
        )
        if broken:
            # The rows are there, but the next run must not take them for what was wanted.
            why = f"asset checks failed: {', '.join(broken)}"
            invalid = entry.made_invalid(self.context.run_id, "failed", why)
            self._ledger.append([invalid], run_id=self.context.run_id)
