"""The panels of fits by metric: costs, coverage and the value of no effect."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
import pytest

from assets.comparison import overview
from assets.comparison.metrics import METRICS, value_of_no_effect
from assets.shared import plots
from assets.shared.plots import Mark, Panel

ROW = {
    "is_control": False,
    **dict.fromkeys(("value_low", "value_high", "cost", "n", "n_attempted", "coverage")),
}
SCHEMA = {
    **dict.fromkeys(("fit", "metric", "unit"), pl.String()),
    "is_control": pl.Boolean(),
    **dict.fromkeys(("value", "value_low", "value_high", "cost", "coverage"), pl.Float64()),
    **dict.fromkeys(("n", "n_attempted"), pl.Int32()),
}


def panels_of(monkeypatch: pytest.MonkeyPatch, *rows: dict) -> dict[str, Panel]:
    found: dict[str, Panel] = {}

    def keep(panels: Mapping[str, Panel], title: str) -> str:
        found.update(panels)
        return f"![{title}]()"

    monkeypatch.setattr(overview, "interval_panels", keep)
    whole = [ROW | {"unit": METRICS[row["metric"]].unit} | row for row in rows]
    overview.method_plot(pl.DataFrame(whole, schema=SCHEMA))
    return found


def cost(fit: str, metric: str, value: float | None) -> dict:
    return {"fit": fit, "metric": metric, "cost": value}


def test_costs_are_panels_on_a_log_axis_unless_one_is_0_or_all_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = panels_of(
        monkeypatch,
        cost("snmf", "fit_seconds", 8.0),
        cost("pca", "fit_seconds", None),
        cost("snmf", "seconds", 900.0),
        cost("pca", "seconds", 700.0),
        cost("snmf", "usd", 0.0),
        cost("pca", "usd", 0.25),
    )
    assert list(shown) == ["fit_seconds", "seconds", "usd"]
    assert [mark.value for mark in shown["seconds"].marks] == [900.0, 700.0]
    assert [mark.name for mark in shown["fit_seconds"].marks] == ["snmf"]
    assert [one.is_log for one in shown.values()] == [True, True, False]
    assert [one.unit for one in shown.values()] == ["seconds", "seconds", "USD"]
    free = [cost("snmf", "usd", 0.0), cost("pca", "usd", None), cost("snmf", "seconds", 1.0)]
    assert list(panels_of(monkeypatch, *free)) == ["seconds"]


def test_marks_tell_how_many_of_the_attempted_features_have_a_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = {"few": (7, 10), "enough": (8, 10), "all": (10, 10)}
    rows = [
        {"fit": fit, "metric": "s_cd", "value": 0.3, "n": n, "n_attempted": of, "coverage": n / of}
        for fit, (n, of) in counts.items()
    ]
    figure = {"fit": "all", "metric": "l0", "value": 3.0}
    shown = panels_of(monkeypatch, *rows, figure)
    told = [(mark.name, mark.is_hollow, mark.note) for mark in shown["s_cd"].marks]
    assert told == [("few", True, "7/10"), ("enough", False, "8/10"), ("all", False, "")]
    assert (shown["l0"].marks[0].is_hollow, shown["l0"].marks[0].note) == (False, "")


def test_the_line_of_no_effect_is_where_the_metric_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    at = {name: value_of_no_effect(name) for name in METRICS}
    halves = {name for name, value in at.items() if value == 0.5}
    assert halves == {"concept_auroc", "generated_auroc", "label_auroc"}
    zeros = {name for name, value in at.items() if value == 0.0}
    assert {"s_cd", "steering_gain", "steering_gain_mean_plus", "ablation_selectivity"} < zeros
    assert not zeros & {"steering_score", "input_score", "l0", "faithfulness", "seconds", "usd"}
    row = {"fit": "snmf", "metric": "label_auroc", "value": 0.7}
    assert panels_of(monkeypatch, row)["label_auroc"].reference == 0.5


def test_what_a_panel_says_is_drawn() -> None:
    marks = [
        Mark("few", 0.2, 0.1, 0.3, is_hollow=True, note="7/10"),
        Mark("all", 0.9, None, None),
    ]
    figure = plots._panels(
        {
            "ablation_concept_selectivity_null": Panel(marks, "nats", reference=0.0),
            "seconds": Panel([Mark("all", 900.0, None, None)], "seconds", is_log=True),
        }
    )
    plain, log = figure.axes
    assert plain.get_title() == "ablation_concept_\nselectivity_null [nats]"
    assert (plain.get_xscale(), log.get_xscale()) == ("linear", "log")
    assert log.get_title() == "seconds [seconds, log]"
    dots = [line for line in plain.lines if line.get_marker() == "o"]
    assert [dot.get_markerfacecolor() for dot in dots] == ["white", "C0"]
    dashed = [line for line in plain.lines if line.get_linestyle() == "--"]
    assert [np.asarray(line.get_xdata()).tolist() for line in dashed] == [[0.0, 0.0]]
    assert [text.get_text() for text in plain.texts] == ["7/10", ""]
    assert not [line for line in log.lines if line.get_linestyle() == "--"]
