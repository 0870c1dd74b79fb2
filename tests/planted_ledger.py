"""Ledger states as a whole run would have left them, written at once: nothing is computed."""

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from assets.activations.config import ModelConfig
from assets.recipe import Recipe, Spec, fingerprint_of, partition_text, study_of
from orchestration.recipes import RECIPES, recipes_of, specs_of
from resources.ledger import Entry
from resources.study import Study

HASHED_COLUMNS = {
    table.name: [column.name for column in table.columns if not column.is_volatile]
    for recipe in RECIPES
    for table in recipe.tables
}


class PlantedWorld:
    """Implements assets.recipe.World: every table was written everywhere.

    `contents` maps (table, partition) to what stands there, where it is not the usual.
    """

    def __init__(
        self,
        study_folder: Path,
        *,
        revision: str = "r1",
        endpoint: str = "",
        contents: Mapping[tuple[str, str], str] | None = None,
    ) -> None:
        self.study_folder = study_folder
        self._revision = revision
        self._endpoint = endpoint
        self._contents = contents or {}

    def versions(self, table: str, partition: str) -> dict[str, str]:
        content = self._contents.get((table, partition), "")
        version = sha256(f"{table}|{partition}|{content}".encode()).hexdigest()[:16]
        return dict.fromkeys(HASHED_COLUMNS[table], version)

    def model_revision(self, model: ModelConfig) -> str:
        return self._revision

    def llm_endpoint(self) -> str:
        return self._endpoint


def planted_states(
    study: Study, world: PlantedWorld, n_rows: Mapping[str, int] | None = None
) -> list[Entry]:
    """A state for every asset partition of a study, made from what `world` tells.

    `n_rows`: rows that a table has in each of its partitions; a table that it does not name, none.
    """
    return [
        planted_state(recipe, spec, world, n_rows or {})
        for spec in specs_of(study)
        for recipe in recipes_of(spec)
    ]


def planted_state(
    recipe: Recipe, spec: Spec, world: PlantedWorld, n_rows: Mapping[str, int]
) -> Entry:
    """One asset partition's state: 2 seconds, 100 forward tokens, 3 LLM calls of 0.5 USD.

    Tokens and calls only where the recipe runs the model or asks the LLM.
    """
    parts = recipe.parts(spec, world)
    partition = partition_text(spec)
    rows_out = sum(n_rows.get(table.name, 0) for table in recipe.tables)
    entry = Entry(
        study=study_of(spec).name,
        run_id="run-1",
        asset=recipe.name,
        partition=partition,
        decision="computed",
        reason="first time",
        fingerprint=fingerprint_of(parts),
        parts=parts,
        versions={table.name: world.versions(table.name, partition) for table in recipe.tables},
        rows_out=rows_out,
        rows_reused=0,
        rows_computed=rows_out,
        rows_to_retry=0,
        attempt=1,
        seconds=2.0,
        data_snapshot=1,
    )
    if recipe.uses_model:
        entry = replace(entry, forward_tokens=100)
    if recipe.uses_llm:
        entry = replace(entry, llm_calls_made=2, llm_calls_reused=1, usd=0.5)
    return entry
