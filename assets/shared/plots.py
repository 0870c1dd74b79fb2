"""Small plots as Markdown images, for asset metadata. What is plotted is decided by the stages."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=90)
    return f"![{title}](data:image/png;base64,{base64.b64encode(image.getvalue()).decode()})"


def line_plot(values: Sequence[float], title: str, x: str, y: str) -> str:
    """One line over 1, 2, … ."""
    return markdown_plot(lambda axes: axes.plot(range(1, len(values) + 1), values), title, x, y)


def histogram(values: Sequence[float], title: str, x: str, *, log: bool = False) -> str:
    """Counts in 50 bins; `log` for a logarithmic count axis."""
    return markdown_plot(lambda axes: axes.hist(values, bins=50, log=log), title, x, "count")
