"""How many LLM calls fits of the study made, as a share of the most there could have been.

A plan multiplies the most calls that a partition can take by the share of them that the clean fits
took: the same fit at other layers where it is clean there, else all clean fits. Labels without a
theme, and contexts that are missing, spare calls. What the lake knows is read once for all fits: a
read of one partition takes as long where the lake has thousands. Which requests are sent is
real_requests.py.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeAlias, TypeVar

from assets.factorization.tables import FACTORIZATIONS
from assets.labels.prompt import Prompt
from assets.labels.tables import LLM_CALLS
from assets.recipe import partition_text
from assets.shared.call_count import CallCount
from assets.shared.feature_limit import feature_limit
from assets.steering.judge_prompt import JudgePrompt
from resources.lake import Lake
from resources.study import FitSpec, Study

P = TypeVar("P", Prompt, JudgePrompt)
Count: TypeAlias = Callable[[int], Mapping[str, CallCount[P]]]


class CallShares:
    """Of one study; `clean` are the (asset, partition) that stay as they are."""

    def __init__(
        self, study: Study, lake: Lake, specs: Sequence[FitSpec], clean: set[tuple[str, str]]
    ) -> None:
        self.study = study
        self._lake = lake
        self._specs = specs
        self._clean = clean
        self._tables = lake.table_names()
        self._found: dict[tuple[str, str], tuple[Counter[str], Counter[str]] | None] = {}

    def as_elsewhere(
        self, stage: str, spec: FitSpec, count: Count[P], n_features: int
    ) -> dict[str, tuple[P, float]]:
        """Prompt name → the most of `count(n_features)` times the share that clean fits took.

        Where none is clean, the usual number: of what fits ask alike, each takes its part.
        """
        counts = count(n_features)
        found = self._made_of_most(stage, spec.fit.key, count)
        if found is None:
            # Another model writes other texts; what is asked of labels alone is the same for all.
            alike = [
                one
                for one in self._specs
                if stage != "steering" or one.site.model == spec.site.model
            ]
            n_fits = max(1, len(alike))
            others = (n_fits - 1) / n_fits
            return {
                name: (one.prompt, one.usual - others * one.as_other_fits)
                for name, one in counts.items()
            }
        made, most = found
        return {
            name: (each.prompt, each.most * made[name] / most[name] if most[name] else each.usual)
            for name, each in counts.items()
        }

    def most(self, stage: str, specs: Sequence[FitSpec], count: Count[Any]) -> Counter[str]:
        """Prompt name → the most calls that fits can take together."""
        most = Counter[str]()
        for one in specs:
            counts = count(self.n_taken_up(stage, one) or 0)
            most.update({name: each.most for name, each in counts.items()})
        return most

    def n_taken_up(self, stage: str, spec: FitSpec) -> int | None:
        """How many features a stage asks the LLM about; None where that is not known."""
        limits = {"labels": self.study.labels, "detection": self.study.detection}
        rank: Any = self._ranks.get(tuple(spec.partition.values()), spec.fit.rank)
        return _least(
            rank if isinstance(rank, int) else None,
            limit_of(spec, self.study.labels),
            limit_of(spec, limits.get(stage, self.study.steering)),
        )

    def _made_of_most(
        self, stage: str, fit: str, count: Count[Any]
    ) -> tuple[Counter[str], Counter[str]] | None:
        """Calls that were made and that could have been, by prompt; None where no fit is clean."""
        sisters = self._clean_by_fit[stage].get(fit, [])
        key = (stage, fit if sisters else "")
        if key not in self._found:
            clean = sisters or [one for fits in self._clean_by_fit[stage].values() for one in fits]
            made = Counter[str]()
            for one in clean:
                made.update(self._made.get((stage, *one.partition.values()), {}))
            is_known = clean and LLM_CALLS.name in self._tables
            self._found[key] = (made, self.most(stage, clean, count)) if is_known else None
        return self._found[key]

    @cached_property
    def _clean_by_fit(self) -> Mapping[str, Mapping[str, list[FitSpec]]]:
        """Stage → fit key → its clean partitions."""
        specs = {partition_text(spec): spec for spec in self._specs}
        found: dict[str, dict[str, list[FitSpec]]] = defaultdict(lambda: defaultdict(list))
        for stage, name in sorted(self._clean):
            if name in specs:
                found[stage][specs[name].fit.key].append(specs[name])
        return found

    @cached_property
    def _ranks(self) -> Mapping[tuple[str, ...], int | None]:
        """(site, fit) → rank of what was fitted."""
        if FACTORIZATIONS.name not in self._tables:
            return {}
        rows = self._lake.query(f"SELECT site, fit, rank FROM {FACTORIZATIONS.name}")
        return {(site, fit): rank for site, fit, rank in rows.iter_rows()}

    @cached_property
    def _made(self) -> Mapping[tuple[str, ...], Mapping[str, int]]:
        """(stage, site, fit) → prompt name → different calls that were made."""
        rows = self._lake.query(
            "SELECT stage, site, fit, prompt_name, count(DISTINCT request_hash) "
            f"FROM {LLM_CALLS.name} GROUP BY ALL"
        )
        made: dict[tuple[str, ...], dict[str, int]] = defaultdict(dict)
        for stage, site, fit, prompt_name, n in rows.iter_rows():
            made[stage, site, fit][prompt_name] = n
        return made


def limit_of(spec: FitSpec, limits: Any) -> int | None:
    """How many features of a fit a stage takes by its settings; None: all."""
    return feature_limit("", limits, spec.fit.is_control).n


def _least(*values: int | None) -> int | None:
    known = [value for value in values if value is not None]
    return min(known) if known else None
