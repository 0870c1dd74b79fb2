"""The fits of a site with their features' values, as every comparison takes them.

A fit that failed, or whose features the catalogue lacks, stays in the comparison with its reason;
rows that it left in the lake earlier are not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from assets.comparison.metrics import FEATURE_METRIC_NAMES

# Columns of `features` that are compared, or say which features belong together.
FEATURE_COLUMNS = ("fit", "feature_id", "concept", "energy_share", *FEATURE_METRIC_NAMES)


@dataclass(frozen=True)
class ComparedFit:
    """One fit; `features` has FEATURE_COLUMNS, strongest first, and is empty where it failed.

    Metrics of further judged labels are columns of it too (further_labels.py).
    """

    key: str
    method: str
    is_control: bool
    features: pl.DataFrame
    reason: str | None = None

    @property
    def is_there(self) -> bool:
        return self.reason is None

    def values(self, metric: str) -> pl.Series:
        """The metric over the features that have it, strongest first."""
        return self.features[metric].drop_nulls()


def compared_fits(
    methods: Mapping[str, tuple[str, bool]],
    features: pl.DataFrame,
    factorizations: pl.DataFrame,
) -> list[ComparedFit]:
    """The fits of `methods` (key → method, is it a control), in that order.

    `features` has FEATURE_COLUMNS at least; `factorizations` fit, status and reason. Rows of other
    fits are left out.
    """
    outcome = {row["fit"]: row for row in factorizations.to_dicts()}
    fits = []
    for key, (method, is_control) in methods.items():
        rows = features.filter(pl.col("fit") == key).sort(
            "energy_share", "feature_id", descending=[True, False], nulls_last=True
        )
        reason = _why_not_there(outcome.get(key), len(rows))
        fits.append(
            ComparedFit(key, method, is_control, rows if reason is None else rows.clear(), reason)
        )
    return fits


def pairs_of_fits(fits: Sequence[ComparedFit]) -> list[tuple[ComparedFit, ComparedFit]]:
    """Every fit that is no control with every later one, and with every control."""
    compared = [fit for fit in fits if not fit.is_control]
    controls = [fit for fit in fits if fit.is_control]
    return [
        (fit, other)
        for number, fit in enumerate(compared)
        for other in (*compared[number + 1 :], *controls)
    ]


def _why_not_there(outcome: Mapping[str, Any] | None, n_features: int) -> str | None:
    if outcome is None:
        return "the fit was not made: factorizations has no row of it"
    if outcome["status"] != "ok":
        return f"the fit failed: {outcome['reason']}"
    return None if n_features else "the catalogue has no features of the fit"
