"""`method_comparison`: every fit by every metric, with what is missing said in each row.

A mean is over the features that have a value, and stands beside how many those are, of how many
that were attempted, and how many could not be since no theme was found to name them
(attempts_query.py). What is missing need not be missing by chance: s_cd is
undefined where a mean cosine is not above 0, which happens to good features as to bad ones and
hardly ever to null controls; scores at the largest target KL lack the features that no strength
moved so far. Means of unequal coverage are of unequal features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from assets.comparison.config import ComparisonConfig
from assets.comparison.fits import ComparedFit
from assets.comparison.intervals import interval_of_mean
from assets.comparison.metrics import COST_METRICS, FEATURE_METRICS, FIT_METRICS, Metric
from assets.comparison.tables import METHOD_COMPARISON

SCHEMA = {
    column.name: column.polars_type
    for column in METHOD_COMPARISON.columns
    if column.name not in METHOD_COMPARISON.partition_by
}


def method_rows(
    fits: Sequence[ComparedFit],
    factorizations: pl.DataFrame,
    faithfulness: pl.DataFrame,
    costs: pl.DataFrame,
    attempts: pl.DataFrame,
    config: ComparisonConfig,
    metrics: Sequence[Metric] = FEATURE_METRICS,
) -> pl.DataFrame:
    """Rows of `method_comparison` without the site; `metrics` are those of features.

    `factorizations` has fit, explained_variance and l0; `faithfulness` the rows of the replacement
    reconstruction; `costs` fit, and each cost (NULL: unknown) with why in a column
    …_reason; `attempts` fit, metric, n_attempted and n_without_label, where these are not both 0.
    """
    fitted, recovered, cost_of = (_by_fit(frame) for frame in (factorizations, faithfulness, costs))
    attempted = {
        (row["fit"], row["metric"]): (row["n_attempted"], row["n_without_label"])
        for row in attempts.to_dicts()
    }
    rows = []
    for fit in fits:
        rows += [
            _mean_row(fit, metric, *attempted.get((fit.key, metric.name), (0, 0)), config)
            for metric in metrics
        ]
        figures = _figures(fitted.get(fit.key, {}), recovered.get(fit.key, {}))
        rows += [_figure_row(fit, m, figures[m.name], config) for m in FIT_METRICS]
        rows += [_cost_row(fit, m, cost_of.get(fit.key, {}), config) for m in COST_METRICS]
    return pl.DataFrame(rows, schema=SCHEMA)


def _mean_row(
    fit: ComparedFit,
    metric: Metric,
    n_attempted: int,
    n_without_label: int,
    config: ComparisonConfig,
) -> dict[str, Any]:
    values = fit.values(metric.name).to_numpy()
    row = _row(fit, metric, config) | {"n": len(values)}
    if fit.is_there:
        # A value was attempted: a catalogue older than its stage may have more of them.
        row["n_attempted"] = n_attempted = max(n_attempted, len(values))
        row["n_without_label"] = n_without_label
        row["coverage"] = len(values) / n_attempted if n_attempted else None
    if not len(values):
        return _without_value(row, fit, metric)
    low, high = interval_of_mean(values, config)
    return row | {
        "value": float(values.mean()),
        "value_low": low,
        "value_high": high,
        "interval_over": None if low is None else "features",
        "reason": None if low is not None else _why_no_interval(values),
    }


def _why_no_interval(values: Float[np.ndarray, " n"]) -> str:
    if len(values) == 1:
        return "an interval needs two features"
    return f"no interval: no spread between {len(values)} features"


def _figure_row(
    fit: ComparedFit, metric: Metric, figure: Mapping[str, Any], config: ComparisonConfig
) -> dict[str, Any]:
    row = _row(fit, metric, config)
    if not fit.is_there or figure.get("value") is None:
        return _without_value(row, fit, metric, figure.get("reason"))
    over = "documents" if figure.get("value_low") is not None else None
    return row | {**figure, "interval_over": over}


def _cost_row(
    fit: ComparedFit, metric: Metric, costs: Mapping[str, Any], config: ComparisonConfig
) -> dict[str, Any]:
    row = _row(fit, metric, config)
    if costs.get(metric.name) is None:
        return _without_value(row, fit, metric, costs.get(f"{metric.name}_reason"))
    return row | {"cost": costs[metric.name]}


def _row(fit: ComparedFit, metric: Metric, config: ComparisonConfig) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(SCHEMA)
    return row | {
        "fit": fit.key,
        "metric": metric.name,
        "method": fit.method,
        "is_control": fit.is_control,
        "n_features": len(fit.features) if fit.is_there else None,
        "unit": metric.unit,
        "higher_is_better": metric.higher_is_better,
        "seed": config.seed,
        "status": "ok",
    }


def _without_value(
    row: dict[str, Any], fit: ComparedFit, metric: Metric, reason: str | None = None
) -> dict[str, Any]:
    if not fit.is_there:
        return row | {"status": "failed", "reason": fit.reason}
    whose = "there is none"
    if row["n"] == 0:
        whose = f"none of the {row['n_attempted']} features attempted has one"
    if row["n_attempted"] == 0:
        whose = "it was attempted of no feature"
    if row["n_without_label"]:
        whose += f" ({row['n_without_label']} more: no theme was found to name them)"
    return row | {
        "status": "no_value",
        "reason": reason or f"{whose}; {metric.told_by} says why",
    }


def _figures(fitted: Mapping[str, Any], recovered: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        "faithfulness": {
            "value": recovered.get("recovered"),
            "value_low": recovered.get("recovered_low"),
            "value_high": recovered.get("recovered_high"),
            "reason": recovered.get("reason"),
        },
        "explained_variance": {"value": fitted.get("explained_variance")},
        "l0": {"value": fitted.get("l0")},
    }


def _by_fit(frame: pl.DataFrame) -> dict[str, dict[str, Any]]:
    return {row["fit"]: row for row in frame.to_dicts()}
