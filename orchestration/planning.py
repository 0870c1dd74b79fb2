"""What a run would do: every asset partition with a decision, the reason and what it may cost.

    compute   what it is made from has changed, rows are to be tried again or are gone, or it was
              never made
    maybe     an input is to be made again; if that gives the same content, it stops there
    reuse     nothing changed
    blocked   what it is made from cannot be told, as a file is missing: the run will fail on it

The ledger's states and the rows there are, each read in one query, are compared with the recipes;
nothing is run or loaded. What decides is ledger.reason_to_make, as in an asset's guard.
Costs are those of the last time, or the mean over the asset's other partitions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from assets.ledger.reasons import NOTHING_CHANGED
from assets.recipe import Recipe, Spec, fingerprint_of, lake_partition, partition_text
from orchestration.recipes import recipes_of, specs_of
from resources.ledger import Entry, reason_to_make
from resources.study import Study
from resources.world import WorldAtOnce

Decision = Literal["compute", "maybe", "reuse", "blocked"]
COSTS = ("seconds", "forward_tokens", "llm_calls", "usd")


@dataclass(frozen=True)
class Planned:
    """One asset partition; a cost of None is not known."""

    asset: str
    partition: str
    decision: Decision
    reason: str
    before: Entry | None
    fingerprint: str | None = None
    costs: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def is_dirty(self) -> bool:
        return self.decision != "reuse"


class Planner:
    """Plans over one world; `read_again` after a partition has been written."""

    def __init__(self, world: WorldAtOnce) -> None:
        self.world = world

    def study(self, study: Study) -> Iterator[Planned]:
        """Every asset partition of a study, in the order of a run."""
        pending: set[tuple[str, str]] = set()
        for spec in specs_of(study):
            yield from self.partition(spec, pending)

    def partition(self, spec: Spec, pending: set[tuple[str, str]] | None = None) -> list[Planned]:
        """The assets of one partition. `pending` are the (table, partition) that may change."""
        pending = set() if pending is None else pending
        planned = []
        for recipe in recipes_of(spec):
            one = self._planned(recipe, spec, pending)
            if one.is_dirty:
                pending |= {(table.name, one.partition) for table in recipe.tables}
            planned.append(one)
        return planned

    def read_again(self, spec: Spec) -> None:
        """Read a partition's states again, once a run has written it."""
        self.world.read_again(partition_text(spec))
        self.__dict__.pop("_mean_costs", None)

    def _planned(self, recipe: Recipe, spec: Spec, pending: set[tuple[str, str]]) -> Planned:
        partition = partition_text(spec)
        before = self.world.state(recipe.name, partition)
        costs = self._costs(recipe, before)
        try:
            parts = recipe.parts(spec, self.world)
        except (ValueError, RuntimeError, OSError) as error:
            first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
            return Planned(recipe.name, partition, "blocked", first_line, before)
        fingerprint = fingerprint_of(parts)
        waits_for = sorted(
            {
                one.table.name
                for one in recipe.inputs
                for read in one.partitions(spec).values()
                if (one.table.name, read) in pending
            }
        )
        reason = reason_to_make(
            before,
            parts,
            fingerprint,
            lambda entry: self.world.n_rows(entry, recipe.tables, lake_partition(spec)),
        )
        if reason is not None:
            return Planned(recipe.name, partition, "compute", reason, before, fingerprint, costs)
        if waits_for:
            reason = f"if {', '.join(waits_for)} come{'s' * (len(waits_for) == 1)} out different"
            return Planned(recipe.name, partition, "maybe", reason, before, fingerprint, costs)
        return Planned(recipe.name, partition, "reuse", NOTHING_CHANGED, before, fingerprint)

    def _costs(self, recipe: Recipe, before: Entry | None) -> dict[str, float | None]:
        costs = self._mean_costs.get(recipe.name, {}) if before is None else cost_of(before)
        # What never runs the model or asks the LLM reports neither, and costs nothing there.
        without = ("forward_tokens",) * (not recipe.uses_model)
        without += ("llm_calls", "usd") * (not recipe.uses_llm)
        return {**costs, **dict.fromkeys(without, 0)}

    @cached_property
    def _mean_costs(self) -> dict[str, dict[str, float | None]]:
        of_asset: dict[str, list[dict[str, float | None]]] = {}
        for (asset, _), entry in self.world.states().items():
            of_asset.setdefault(asset, []).append(cost_of(entry))
        return {asset: _means(costs) for asset, costs in of_asset.items()}


def cost_of(entry: Entry) -> dict[str, float | None]:
    """What a partition took; its LLM calls count whether or not the cache answered them then."""
    calls = (entry.llm_calls_made, entry.llm_calls_reused)
    return {
        "seconds": entry.seconds,
        "forward_tokens": entry.forward_tokens,
        "llm_calls": None if calls == (None, None) else sum(n or 0 for n in calls),
        "usd": entry.usd,
    }


@dataclass(frozen=True)
class Total:
    """A sum of costs: of those that are known, and how many are not."""

    known: float
    n_known: int
    n_unknown: int


def totals(planned: Iterable[Planned]) -> dict[str, Total]:
    """The sum of each cost over asset partitions."""
    rows = list(planned)
    found: dict[str, Total] = {}
    for name in COSTS:
        known = [value for row in rows if (value := row.costs.get(name)) is not None]
        found[name] = Total(sum(known), len(known), len(rows) - len(known))
    return found


def _means(costs: list[dict[str, float | None]]) -> dict[str, float | None]:
    means: dict[str, float | None] = {}
    for name in COSTS:
        known = [value for one in costs if (value := one[name]) is not None]
        means[name] = sum(known) / len(known) if known else None
    return means
