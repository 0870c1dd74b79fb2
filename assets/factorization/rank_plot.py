"""The candidates of `rank: auto` as a plot for the asset's metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.factorization.rank_choice import RankChoice
from assets.shared.plots import markdown_plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def rank_plot(choice: RankChoice) -> str:
    """Held-out explained variance, stability and the share reproduced, by rank (Markdown)."""
    shown = [c for c in choice.candidates if c.n_reproduced is not None]
    ranks = [c.rank for c in shown]

    def draw(axes: Axes) -> None:
        axes.errorbar(
            ranks,
            [c.held_out_mean or float("nan") for c in shown],
            yerr=[c.held_out_standard_error or 0.0 for c in shown],
            marker="o",
            label="held-out explained variance",
        )
        axes.plot(ranks, [c.stability or 0.0 for c in shown], marker="s", label="stability")
        shares = [(c.n_reproduced or 0.0) / c.rank for c in shown]
        axes.plot(ranks, shares, marker="^", label="share reproduced")
        axes.axvline(choice.rank, color="k", lw=0.7)
        axes.set_xscale("log", base=2)
        axes.legend(frameon=False, fontsize="small")

    return markdown_plot(draw, f"Rank {choice.rank} chosen", "rank", "")
