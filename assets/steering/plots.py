"""Plots of the steering assets, for their metadata."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from assets.shared.plots import markdown_plot


def kl_plot(curve: pl.DataFrame, rows: pl.DataFrame, targets: Sequence[float]) -> str:
    """Every KL evaluated (`curve`) and achieved (`rows` of calibrations), and the targets."""
    reached = rows.select("strength", kl_nats="achieved_kl_nats")
    points = (
        pl.concat([curve.select("strength", "kl_nats"), reached])
        .drop_nulls()
        .filter(pl.col("kl_nats") > 0)
    )
    return markdown_plot(
        lambda axes: (
            axes.loglog(points["strength"], points["kl_nats"], ".", alpha=0.4),
            [axes.axhline(kl, lw=0.5) for kl in targets],
        ),
        "KL against strength",
        "strength α",
        "KL(base‖steered) [nats]",
    )


def mean_score_plot(scores: pl.DataFrame) -> str:
    """The mean over features and texts of `steering_scores`, by target KL; a line a sign and label.

    At each point how many of the texts were judged: a target that few features reach is a mean over
    these.
    """
    means = mean_scores(scores)
    lines = means.drop_nulls("score").partition_by("sign", "label_kind", maintain_order=True)
    return markdown_plot(
        lambda axes: (
            [
                axes.plot(
                    line["target_kl_nats"],
                    line["score"],
                    "o-",
                    label=f"{line['sign'][0]}, {line['label_kind'][0]}",
                )
                for line in lines
            ],
            [
                axes.annotate(
                    f"{row['n']} of {row['n_texts']}",
                    (row["target_kl_nats"], row["score"]),
                    xytext=(0, 5),
                    textcoords="offset points",
                    ha="center",
                    fontsize=6,
                )
                for line in lines
                for row in line.to_dicts()
            ],
            axes.legend(title="sign (0: base), label") if lines else None,
        ),
        "Mean steering score by target KL",
        "target KL [nats]",
        "mean score, 0 to 2",
    )


def mean_scores(scores: pl.DataFrame) -> pl.DataFrame:
    """By sign, label_kind and target_kl_nats the mean score, the n it is over, and n_texts."""
    key = ("sign", "label_kind", "target_kl_nats")
    tried = scores.filter(pl.col("status") != "not_attempted")
    score = pl.col("score")
    return tried.group_by(key).agg(score.mean(), n=score.count(), n_texts=pl.len()).sort(key)
