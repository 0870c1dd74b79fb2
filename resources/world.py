"""What recipes ask about: data versions from the ledger, the model's revision, the LLM's address.

The ledger is read either once for each partition asked about (an asset's guard) or once for all (a
plan).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from assets.activations.config import ModelConfig
from assets.shared.schema import Table
from resources.chat_replies import without_password
from resources.ledger import Entry, Ledger, versions_in
from resources.model_resource import SubjectModelResource
from resources.model_sources import SubjectModelError
from resources.row_counts import Counts, rows_by_partition
from resources.study_files import StudiesResource


class LakeWorld:
    """Implements assets.recipe.World over one lake."""

    def __init__(
        self,
        ledger: Ledger,
        studies: StudiesResource,
        subject_models: SubjectModelResource | None,
    ) -> None:
        self.ledger = ledger
        self.study_folder = Path(studies.folder)
        self._subject_models = subject_models
        self._revisions: dict[ModelConfig, str | SubjectModelError] = {}
        self._states_of: dict[str, dict[tuple[str, str], Entry]] = {}

    def state(self, asset: str, partition: str) -> Entry | None:
        """What an asset's partition was last made from."""
        return self._of(partition).get((asset, partition))

    def versions(self, table: str, partition: str) -> Mapping[str, str] | None:
        return versions_in(self._of(partition).values(), table)

    def _of(self, partition: str) -> Mapping[tuple[str, str], Entry]:
        if partition not in self._states_of:
            self._states_of[partition] = self.ledger.states_of(partition)
        return self._states_of[partition]

    def n_rows(self, before: Entry, tables: Sequence[Table], partition: Mapping[str, str]) -> int:
        """Rows that are in the lake, of those of an asset's `tables` that `before` tells of."""
        self.ledger.lake.ensure_tables(tables)
        return sum(
            self.ledger.lake.count(table, _where(table, partition))
            for table in tables
            if table.name in (before.versions or {})
        )

    def model_revision(self, model: ModelConfig) -> str:
        """What identifies a model; raises SubjectModelError where it cannot be had.

        Each model is asked for once, found or not: a plan has hundreds of partitions, and a hub
        that does not answer takes seconds each time.
        """
        if model not in self._revisions:
            assert self._subject_models is not None, "this asset was not given subject_models"
            try:
                self._revisions[model] = self._subject_models.revision(model)
            except SubjectModelError as error:
                self._revisions[model] = error
        found = self._revisions[model]
        if isinstance(found, SubjectModelError):
            raise SubjectModelError(str(found))
        return found

    def llm_endpoint(self) -> str:
        return without_password(os.environ.get("OPENAI_BASE_URL", ""))


class WorldAtOnce(LakeWorld):
    """The same, with every state, and the number of rows of every partition, read in one query,
    for a plan over thousands of partitions."""

    @cached_property
    def _states(self) -> dict[tuple[str, str], Entry]:
        return self.ledger.states()

    @cached_property
    def _versions(self) -> dict[tuple[str, str], Mapping[str, str]]:
        return {
            (table, partition): columns
            for (_, partition), entry in self._states.items()
            for table, columns in (entry.versions or {}).items()
        }

    def states(self) -> Mapping[tuple[str, str], Entry]:
        """Every state, by (asset, partition)."""
        return self._states

    def state(self, asset: str, partition: str) -> Entry | None:
        return self._states.get((asset, partition))

    def versions(self, table: str, partition: str) -> Mapping[str, str] | None:
        return self._versions.get((table, partition))

    @cached_property
    def _counts(self) -> Counts:
        return rows_by_partition(self.ledger.lake)

    def n_rows(self, before: Entry, tables: Sequence[Table], partition: Mapping[str, str]) -> int:
        of_catalog = sum(
            self._counts.get((table.name, tuple(_where(table, partition).values())), 0)
            for table in tables
            if table.name in (before.versions or {})
        )
        # Counted one by one only where something is amiss, or was written since.
        return (
            of_catalog
            if of_catalog == before.rows_out
            else super().n_rows(before, tables, partition)
        )

    def read_again(self, partition: str) -> None:
        """Read a partition's states again: a run has written it since."""
        for key, entry in self.ledger.states_of(partition).items():
            self._states[key] = entry
            for table, columns in (entry.versions or {}).items():
                self._versions[table, partition] = columns


def _where(table: Table, partition: Mapping[str, str]) -> dict[str, str]:
    return {name: partition[name] for name in table.partition_by}
