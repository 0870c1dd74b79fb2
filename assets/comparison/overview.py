"""The comparison as people look at it first: a table, a plot, and what the tests say.

Where texts are judged on further labels (further_labels.py), the metrics of each are a table and a
row of panels below the others, under its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import polars as pl

from assets.comparison.feature_significance import EVERY
from assets.comparison.further_labels import split_name, suffix_of
from assets.comparison.metrics import COST_METRICS, METRICS, value_of_no_effect
from assets.shared.plots import Mark, Panel, interval_panels

NOTHING = "–"
PANELS_IN_A_ROW = 5
LOW_COVERAGE = 0.8
LEGEND = (
    "Grey: controls. Lines: intervals. Dashed: what features without effect score. n/attempted "
    "above a mark: so many of the features attempted have a value; hollow: less than "
    f"{LOW_COVERAGE:.0%} of them."
)


def method_table(rows: pl.DataFrame) -> str:
    """`method_comparison` as Markdown: a line a fit, a column a metric.

    Where not every feature has a value, how many of those attempted have, and how many are not
    attempted because no theme was found to name them.
    """
    tables = [_table(rows, {name: name for name in METRICS})]
    tables += [f"{_heading(judged)}\n\n{_table(rows, names)}" for judged, names in _further(rows)]
    return "\n\n".join(tables)


def method_plot(rows: pl.DataFrame) -> str | None:
    """Every metric and cost with a value as a panel, fits from top to bottom, controls grey.

    The panels stand in rows, each an image; None where no metric has a value. Left out is a cost
    that is 0 for every fit.
    """
    is_free = (pl.col("cost").max().over("metric") == 0).fill_null(value=False)
    shown = rows.with_columns(shown=pl.coalesce("value", "cost")).filter(
        pl.col("shown").is_not_null() & ~is_free
    )
    parts = _images(shown, {name: name for name in METRICS})
    for judged, names in _further(shown):
        parts += [_heading(judged), *_images(shown, names)]
    return "\n\n".join([*parts, LEGEND]) if parts else None


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
    """How many features of each fit are significant against every control, as Markdown.

    Beside it how many have a value, and how many controls the kind has that has fewest.
    """
    lines = [_line(["fit", "metric", "significant", "with a value", "controls"])]
    lines.append(_line(["---"] * 5))
    of_every = rows.filter(pl.col("control") == EVERY)
    for group in of_every.partition_by("fit", "metric", maintain_order=True):
        called = group["is_significant"].drop_nulls()
        n_called = str(called.sum()) if len(called) else NOTHING
        n_value = str(group["value"].count())
        first = group.row(0, named=True)
        lines.append(
            _line([first["fit"], first["metric"], n_called, n_value, str(first["n_controls"])])
        )
    return "\n".join(lines)


def _further(rows: pl.DataFrame) -> list[tuple[str, dict[str, str]]]:
    """Each further judged label, and its metrics among `rows` by their plain names."""
    metrics = rows["metric"].unique(maintain_order=True).to_list()
    found: dict[str, dict[str, str]] = {}
    for metric in metrics:
        if metric not in METRICS:
            plain, judged = split_name(metric)
            found.setdefault(judged, {})[plain] = metric
    return list(found.items())


def _heading(judged: str) -> str:
    return f"By the {judged} label (…{suffix_of(judged)}):"


def _table(rows: pl.DataFrame, names: Mapping[str, str]) -> str:
    """A line a fit; `names` maps the heading of a column to its metric."""
    lines = [_line(["fit", *names]), _line(["---"] * (1 + len(names)))]
    for of_fit in rows.partition_by("fit", maintain_order=True):
        cells = {row["metric"]: _cell(row) for row in of_fit.to_dicts()}
        name = f"{of_fit['fit'][0]}{' (control)' * of_fit['is_control'][0]}"
        lines.append(_line([name, *(cells.get(metric, NOTHING) for metric in names.values())]))
    return "\n".join(lines)


def _images(rows: pl.DataFrame, names: Mapping[str, str]) -> list[str]:
    """Rows of panels; `names` maps the title of a panel to its metric."""
    of_metric = rows.partition_by("metric", as_dict=True)
    panels = {
        title: _panel(title, of_metric[metric,])
        for title, metric in names.items()
        if (metric,) in of_metric
    }
    titles = list(panels)
    in_rows = [titles[i : i + PANELS_IN_A_ROW] for i in range(0, len(titles), PANELS_IN_A_ROW)]
    return [interval_panels({t: panels[t] for t in row}, "Fits by metric") for row in in_rows]


def _panel(metric: str, rows: pl.DataFrame) -> Panel:
    is_cost = metric in {cost.name for cost in COST_METRICS}
    return Panel(
        [_mark(row) for row in rows.to_dicts()],
        unit=rows["unit"][0],
        reference=value_of_no_effect(metric),
        is_log=is_cost and bool((rows["shown"] > 0).all()),
    )


def _mark(row: dict) -> Mark:
    is_whole = not row["n_attempted"] or row["n"] == row["n_attempted"]
    return Mark(
        row["fit"],
        row["shown"],
        row["value_low"],
        row["value_high"],
        is_muted=row["is_control"],
        is_hollow=row["coverage"] is not None and row["coverage"] < LOW_COVERAGE,
        note="" if is_whole else f"{row['n']}/{row['n_attempted']}",
    )


def _cell(row: dict) -> str:
    value = row["value"] if row["value"] is not None else row["cost"]
    text = NOTHING if value is None else f"{value:.3g}"
    if row["value_low"] is not None:
        text += f" ({row['value_low']:.3g} to {row['value_high']:.3g})"
    if row["n_attempted"] and row["n"] < row["n_features"]:
        text += f", n {row['n']} of {row['n_attempted']}"
    if row["n_without_label"]:
        text += f", {row['n_without_label']} without label"
    return text


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
