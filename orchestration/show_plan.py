"""`make plan STUDY=demo`: what a run would do and cost, said beforehand; nothing is run.

Asset partitions that share asset, decision and reason stand in one line with their number; ALL=1
gives each its own. Costs are those of the last time, or the mean over the asset's other partitions;
"?" where nothing is known, "12 + ?" where some of them are not. What decides is planning.py; what
LLM calls will take is estimated by llm_estimate.py.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from orchestration.command_line import command_console
from orchestration.folders import default_resources
from orchestration.gold_view import REASON, unnamed
from orchestration.llm_estimate import LlmEstimator
from orchestration.planning import Planned, Planner, Total
from resources.lake import Lake
from resources.lake_tables import LakeError
from resources.ledger import Ledger
from resources.night_config import BudgetConfig
from resources.study import Study
from resources.study_files import StudyError
from resources.world import WorldAtOnce

USAGE = "make plan STUDY=demo; with ALL=1 every asset partition has its own line"
STYLES = {"compute": "bold", "maybe": "", "blocked": "red"}
COLUMNS = {
    "seconds": "seconds",
    "forward_tokens": "forward tokens",
    "llm_calls": "LLM calls",
    "prompt_tokens": "prompt tokens",
    "completion_tokens": "completion tokens",
    "usd": "USD",
}
WORDS = {
    "compute": "to compute",
    "maybe": "to compute if what they read comes out different",
    "blocked": "blocked",
    "reuse": "reused as they are",
}


def main(variables: Mapping[str, str]) -> int:
    """Print the plan; exit status 0, whatever is in it."""
    console = command_console()
    resources = default_resources()
    try:
        study = resources["studies"].study(variables.get("STUDY") or "demo")
        with _lake_to_plan_with(resources["lake"].open()) as lake:
            world = WorldAtOnce(Ledger(lake), resources["studies"], resources["subject_models"])
            estimator = LlmEstimator(study, lake, world.llm_endpoint())
            planned = estimator.with_costs(list(Planner(world).study(study)))
            leaving = [one.partition for one in unnamed(world.states(), [study], {study.name})]
    except (LakeError, StudyError) as error:
        console.print(str(error), style="red", markup=False)
        return 2
    show_plan(console, study, planned, is_each_shown=bool(variables.get("ALL")))
    if leaving:
        console.print(f"Leaves the gold view, as {REASON}: {', '.join(leaving)}", markup=False)
    return 0


@contextmanager
def _lake_to_plan_with(lake: Lake) -> Iterator[Lake]:
    """The lake; where there is none yet, an empty one, so that a plan leaves nothing behind."""
    if (lake.root / "catalog.sqlite").exists():
        yield lake
        return
    with tempfile.TemporaryDirectory() as folder:
        empty = Lake(Path(folder))
        try:
            yield empty
        finally:
            empty.close()


def show_plan(
    console: Console, study: Study, planned: Sequence[Planned], *, is_each_shown: bool = False
) -> None:
    """What is to be made and why, and what all of it costs beside the study's budget."""
    dirty = [one for one in planned if one.is_dirty]
    counts = Counter(one.decision for one in planned)
    if dirty:
        table = RichTable(title=f"What a run of study {study.name} would do")
        for heading in ("", "asset", "partition", "why"):
            table.add_column(heading, overflow="fold")
        _add_cost_columns(table)
        for group in groups_of(dirty, is_each_shown=is_each_shown):
            first = group[0]
            where = first.partition if len(group) == 1 else f"{len(group)} partitions"
            costs = () if first.decision == "blocked" else _cost_texts(group)
            table.add_row(
                first.decision,
                first.asset,
                where,
                first.reason,
                *costs,
                style=STYLES[first.decision],
            )
        console.print(table)
        console.print(_totals_table(planned, study.nightly.budget))
    said = ", ".join(f"{counts[name]} {word}" for name, word in WORDS.items() if counts[name])
    console.print(f"{study.name}: of {len(planned)} asset partitions {said}")
    if len(dirty) > len(groups_of(dirty)) and not is_each_shown:
        console.print("ALL=1 shows each partition")


def groups_of(planned: Sequence[Planned], *, is_each_shown: bool = False) -> list[list[Planned]]:
    """Asset partitions that one line tells of, in the order of a run."""
    if is_each_shown:
        return [[one] for one in planned]
    groups: dict[tuple[str, str, str], list[Planned]] = {}
    for one in planned:
        groups.setdefault((one.asset, one.decision, one.reason), []).append(one)
    return list(groups.values())


def _totals_table(planned: Sequence[Planned], budget: BudgetConfig) -> RichTable:
    at_least = [one for one in planned if one.decision == "compute"]
    at_most = [one for one in planned if one.decision in ("compute", "maybe")]
    table = RichTable(title="Costs, as far as the ledger can tell")
    table.add_column("")
    _add_cost_columns(table)
    table.add_row("at least", *_cost_texts(at_least))
    table.add_row("at most", *_cost_texts(at_most))
    if budget != BudgetConfig():
        seconds = None if budget.minutes is None else 60 * budget.minutes
        limits = (seconds, None, budget.llm_calls, None, None, budget.usd)
        table.add_row("budget of a night", *("any" if v is None else _number(v) for v in limits))
    return table


def _add_cost_columns(table: RichTable) -> None:
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right")


def _cost_texts(planned: Sequence[Planned]) -> list[str]:
    return [_total(total_of(planned, name)) for name in COLUMNS]


def total_of(planned: Sequence[Planned], name: str) -> Total:
    """The sum of one cost over asset partitions."""
    known = [value for one in planned if (value := one.costs.get(name)) is not None]
    return Total(sum(known), len(known), len(planned) - len(known))


def _total(total: Total) -> str:
    if not total.n_unknown:
        return _number(total.known)
    return f"{_number(total.known)} + ?" if total.known else "?"


def _number(value: Any) -> str:
    """Digits that matter: 1,234 or 12.3 or 0.0042."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if value >= 100 or float(value).is_integer() else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main(os.environ))
