"""The comparison as people look at it first: a table, a plot, and what the tests say."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from assets.comparison.metrics import COST_METRICS, METRICS
from assets.shared.plots import Mark, interval_panels

NOTHING = "–"
PANELS_IN_A_ROW = 7


def method_table(rows: pl.DataFrame) -> str:
    """`method_comparison` as Markdown: a line a fit, a column a metric.

    Where not every feature has a value, how many of those attempted have.
    """
    lines = [_line(["fit", *METRICS]), _line(["---"] * (1 + len(METRICS)))]
    for of_fit in rows.partition_by("fit", maintain_order=True):
        cells = {row["metric"]: _cell(row) for row in of_fit.to_dicts()}
        name = f"{of_fit['fit'][0]}{' (control)' * of_fit['is_control'][0]}"
        lines.append(_line([name, *(cells.get(metric, NOTHING) for metric in METRICS)]))
    return "\n".join(lines)


def method_plot(rows: pl.DataFrame) -> str | None:
    """Every metric with a value as a panel, fits from top to bottom, controls grey.

    The panels stand in rows, each an image; None where no metric has a value.
    """
    costs = [metric.name for metric in COST_METRICS]
    shown = rows.filter(pl.col("value").is_not_null() & ~pl.col("metric").is_in(costs))
    panels = {
        of_metric["metric"][0]: [
            Mark(r["fit"], r["value"], r["value_low"], r["value_high"], r["is_control"])
            for r in of_metric.to_dicts()
        ]
        for of_metric in shown.partition_by("metric", maintain_order=True)
    }
    names = list(panels)
    in_rows = [names[i : i + PANELS_IN_A_ROW] for i in range(0, len(names), PANELS_IN_A_ROW)]
    images = [interval_panels({n: panels[n] for n in row}, "Fits by metric") for row in in_rows]
    return "\n\n".join(images) or None


def tests_table(rows: pl.DataFrame) -> str:
    """`paired_tests` that were made, smallest q first, as Markdown."""
    head = ["metric", "a", "b", "pairs", "median a - b", "q"]
    lines = [_line(head), _line(["---"] * len(head))]
    for r in rows.filter(status="ok").sort("q_value", maintain_order=True).to_dicts():
        pairs = f"{r['n_pairs']} by {r['pairing']}"
        difference = f"{r['median_difference']:+.3g}"
        lines.append(
            _line([r["metric"], r["fit_a"], r["fit_b"], pairs, difference, f"{r['q_value']:.2g}"])
        )
    return "\n".join(lines)


def significance_table(rows: pl.DataFrame) -> str:
    """How many features of each fit are significant, of how many with a value, as Markdown."""
    lines = [_line(["fit", "metric", "significant", "with a value", "controls"])]
    lines.append(_line(["---"] * 5))
    for group in rows.partition_by("fit", "metric", maintain_order=True):
        called = group["is_significant"].drop_nulls()
        n_called = str(called.sum()) if len(called) else NOTHING
        n_value = str(group["value"].count())
        first = group.row(0, named=True)
        lines.append(
            _line([first["fit"], first["metric"], n_called, n_value, str(first["n_controls"])])
        )
    return "\n".join(lines)


def _cell(row: dict) -> str:
    value = row["value"] if row["value"] is not None else row["cost"]
    text = NOTHING if value is None else f"{value:.3g}"
    if row["value_low"] is not None:
        text += f" ({row['value_low']:.3g} to {row['value_high']:.3g})"
    if row["n_attempted"] and row["n"] < row["n_features"]:
        text += f", n {row['n']} of {row['n_attempted']}"
    return text


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
