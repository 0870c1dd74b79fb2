"""What an asset's partition was last made from, what it would be made from now, and what follows.

Whether it is current and why not, how often it was tried, and its row of the ledger. Making and
writing it is stage_run.py; the comparison in words is ledger/reasons.py.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import polars as pl

from assets.ledger.reasons import NOTHING_CHANGED
from assets.recipe import (
    Recipe,
    Spec,
    fingerprint_of,
    lake_partition,
    partition_text,
    study_of,
)
from assets.shared.schema import Table
from assets.written_rows import rows_as_written
from resources.ledger import Entry, reason_to_make
from resources.world import LakeWorld


class PartitionState:
    """Of one recipe and one partition, as the ledger and the lake have them when it is made."""

    def __init__(self, recipe: Recipe, spec: Spec, world: LakeWorld) -> None:
        self.recipe = recipe
        self.spec = spec
        self.before = world.state(recipe.name, partition_text(spec))
        self.parts = recipe.parts(spec, world)
        self.fingerprint = fingerprint_of(self.parts)
        self._world = world

    @property
    def rows_before(self) -> int | None:
        return None if self.before is None else self.before.rows_out

    @cached_property
    def _reason_to_make(self) -> str | None:
        """As it was when first asked: what is written after that is no reason."""
        return reason_to_make(self.before, self.parts, self.fingerprint, self._n_rows)

    def _n_rows(self, before: Entry) -> int:
        return self._world.n_rows(before, self.recipe.tables, lake_partition(self.spec))

    @property
    def reason(self) -> str:
        """Why the partition is made, or that nothing changed."""
        return self._reason_to_make or NOTHING_CHANGED

    @property
    def is_current(self) -> bool:
        """Whether the rows in the lake are what this materialization would write."""
        return self._reason_to_make is None

    @cached_property
    def has_all_rows(self) -> bool:
        """Whether the lake holds as many rows as the ledger says were written last."""
        return self.before is None or self._n_rows(self.before) == self.before.rows_out

    def attempt_with(self, n_to_retry: int) -> int:
        """How many times these very parts have been tried, this time included.

        Where fewer rows wait for a retry than before it is worth going on: the count begins anew.
        """
        before = self.before
        if before is None or before.fingerprint != self.fingerprint:
            return 1
        is_progress = 0 < n_to_retry < (before.rows_to_retry or 0)
        return 1 if is_progress else (before.attempt or 1) + 1

    def rows_to_put_back(self) -> dict[Table, pl.DataFrame] | None:
        """What was written, where no more is amiss than that rows of it are gone."""
        before = self.before
        if before is None or before.fingerprint != self.fingerprint or before.wants_retry:
            return None
        partition = lake_partition(self.spec)
        return rows_as_written(self._world.ledger.lake, before, self.recipe.tables, partition)

    def entry(self, run_id: str, decision: str, reason: str, **figures: Any) -> Entry:
        """The partition's row of the ledger."""
        return Entry(
            study=study_of(self.spec).name,
            run_id=run_id,
            asset=self.recipe.name,
            partition=partition_text(self.spec),
            decision=decision,
            reason=reason,
            fingerprint_before=None if self.before is None else self.before.fingerprint,
            fingerprint=self.fingerprint,
            parts=self.parts,
            rows_in=self.rows_before,
            **figures,
        )
