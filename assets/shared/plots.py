"""Small plots as Markdown images, for asset metadata. What is plotted is decided by the stages."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEADING_WIDTH = 26


def markdown_plot(draw: Callable[[Axes], object], title: str, x: str, y: str) -> str:
    """A Markdown image (PNG inside) of what `draw` puts on a pair of axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Without pyplot: no global state, safe in threads, no display.
    figure = Figure(figsize=(5.6, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw(axes)
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    return _as_markdown(figure, title)


def line_plot(values: Sequence[float], title: str, x: str, y: str) -> str:
    """One line over 1, 2, … ."""
    return markdown_plot(lambda axes: axes.plot(range(1, len(values) + 1), values), title, x, y)


def histogram(values: Sequence[float], title: str, x: str, *, log: bool = False) -> str:
    """Counts in 50 bins; `log` for a logarithmic count axis."""
    return markdown_plot(lambda axes: axes.hist(values, bins=50, log=log), title, x, "count")


@dataclass(frozen=True)
class Mark:
    """One value with its interval; grey where `is_muted`, with `note` in small above it."""

    name: str
    value: float
    low: float | None
    high: float | None
    is_muted: bool = False
    is_hollow: bool = False
    note: str = ""


@dataclass(frozen=True)
class Panel:
    """Marks of one unit, on a logarithmic axis where `is_log`; a dashed line at `reference`."""

    marks: Sequence[Mark]
    unit: str = ""
    reference: float | None = None
    is_log: bool = False


def interval_panels(panels: Mapping[str, Panel], title: str) -> str:
    """A panel side by side for each title: its marks from top to bottom, names at the left one.

    A name stands at the same height in every panel; one that a panel lacks is left empty there.
    """
    return _as_markdown(_panels(panels), title)


def _panels(panels: Mapping[str, Panel]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(mark.name for one in panels.values() for mark in one.marks))
    figure = Figure(figsize=(1.6 + 2.0 * len(panels), 1.2 + 0.3 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (heading, panel) in zip(all_axes, panels.items(), strict=True):
        if panel.reference is not None:
            axes.axvline(panel.reference, color="0.4", linestyle="--", linewidth=0.8, zorder=0)
        for mark in panel.marks:
            _draw(axes, mark, names.index(mark.name))
        if panel.is_log:
            _log_axis(axes, [mark.value for mark in panel.marks])
        unit = ", ".join([panel.unit] * bool(panel.unit) + ["log"] * panel.is_log)
        axes.set_title(_in_lines(heading, unit), fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0].set_yticks(range(len(names)), names)
    all_axes[0].set_ylim(len(names) - 0.5, -0.7)
    return figure


def _draw(axes: Axes, mark: Mark, height: int) -> None:
    colour = "0.6" if mark.is_muted else "C0"
    if mark.low is not None and mark.high is not None:
        axes.plot([mark.low, mark.high], [height, height], color=colour)
    filling = "white" if mark.is_hollow else colour
    axes.plot(mark.value, height, "o", color=colour, markerfacecolor=filling)
    axes.annotate(
        mark.note,
        (mark.value, height),
        (0, 3),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=7,
        color="0.3",
    )


def _log_axis(axes: Axes, values: Sequence[float]) -> None:
    """Ticks at powers of ten, or at as many rounder numbers as a narrow range needs for some."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axes.set_xscale("log")
    ratio = max(values) / min(values)
    some = LogLocator(subs=(1.0,) if ratio > 50 else (1.0, 3.0), numticks=5)
    axes.xaxis.set_major_locator(some if ratio > 8 else MaxNLocator(3))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _in_lines(heading: str, unit: str) -> str:
    """A heading in lines that fit over a panel, broken after "_", with its unit."""
    parts = [f"{part}_" for part in heading.split("_")]
    parts[-1] = heading.split("_")[-1] + (f" [{unit}]" if unit else "")
    lines = [""]
    for part in parts:
        if lines[-1] and len(lines[-1] + part) > HEADING_WIDTH:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _as_markdown(figure: Figure, title: str) -> str:
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=90)
    return f"![{title}](data:image/png;base64,{base64.b64encode(image.getvalue()).decode()})"
