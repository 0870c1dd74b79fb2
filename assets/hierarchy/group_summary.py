"""What steering by a group came to: a line of figures and a members × members picture a group.

Only summarises rows of `group_steering`; measuring is group_steering.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from assets.hierarchy.core_neurons import CORE, EXCLUSIVE
from assets.shared.plots import markdown_plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def member_effects(frame: pl.DataFrame, group_name: str) -> pl.DataFrame:
    """Mean Δ log-probability of a group's members by intervention, and whose token it is.

    One row an intervention and `measured`: own (the steered member's token), other members (for
    core: every member), outside (concepts not of the group). `n_rising` counts means above 0.
    """
    measured = (
        pl.when(~pl.col("is_member"))
        .then(pl.lit("outside"))
        .when(pl.col("steered") == pl.col("measured_concept"))
        .then(pl.lit("own"))
        .otherwise(pl.lit("other members"))
    )
    return (
        frame.filter(group_name=group_name, status="ok")
        .group_by("intervention", measured.alias("measured"))
        .agg(
            pl.col("delta_logprob").mean(),
            (pl.col("delta_logprob") > 0).sum().alias("n_rising"),
            pl.len().alias("n"),
        )
        .sort("intervention", "measured")
    )


def n_own_highest(frame: pl.DataFrame, group_name: str) -> tuple[int, int]:
    """For how many of the members steered by exclusive neurons their own token rises most."""
    rows = frame.filter(
        group_name=group_name, intervention=EXCLUSIVE, status="ok", is_member=True
    ).sort("delta_logprob", descending=True)
    highest = rows.group_by("steered", maintain_order=True).first()
    return highest.filter(pl.col("steered") == pl.col("measured_concept")).height, highest.height


def group_metadata(frame: pl.DataFrame) -> dict[str, str]:
    """Markdown by name for each group steered: its effects as a table, and the picture."""
    shown = {}
    for name in frame["group_name"].unique(maintain_order=True).to_list():
        effects = member_effects(frame, name)
        right, of = n_own_highest(frame, name)
        lines = [
            "| intervention | measured | mean Δ log p [nats] | rising |",
            "|---|---|---|---|",
            *(
                f"| {row['intervention']} | {row['measured']} | {row['delta_logprob']:+.3f} | "
                f"{row['n_rising']} of {row['n']} |"
                for row in effects.iter_rows(named=True)
            ),
            "",
            f"Exclusive neurons raise their own member most for {right} of {of} members.",
        ]
        shown[f"effects_{name}"] = "\n".join(lines)
        picture = _picture(frame, name)
        if picture is not None:
            shown[f"members_{name}"] = picture
    return shown


def _picture(frame: pl.DataFrame, group_name: str) -> str | None:
    rows = frame.filter(
        pl.col("intervention").is_in([CORE, EXCLUSIVE]),
        pl.col("delta_logprob").is_not_null(),
        group_name=group_name,
        is_member=True,
    )
    if rows.is_empty():
        return None
    table = rows.pivot("measured_concept", index="steered", values="delta_logprob")
    steered, measured = table["steered"].to_list(), table.columns[1:]
    values = table.drop("steered").to_numpy().astype(float)
    largest = float(abs(values[values == values]).max())

    def draw(axes: Axes) -> None:
        axes.imshow(values, cmap="RdBu", vmin=-largest, vmax=largest, aspect="auto")
        axes.set_xticks(range(len(measured)), measured, rotation=45, fontsize=7)
        axes.set_yticks(range(len(steered)), steered, fontsize=7)

    return markdown_plot(
        draw, f"Δ log p, ±{largest:.2f} nats (blue: up)", "measured token", "steered by"
    )
