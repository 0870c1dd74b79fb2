"""A fit's label scores in a few numbers, for an asset's metadata: means beside their control."""

from __future__ import annotations

import polars as pl

from assets.shared.covered_mean import covered_mean


def score_summary(scores: pl.DataFrame) -> dict[str, float]:
    """Means with their coverage, e.g. detection_hard, detection_hard_shuffled.

    Of AUROC; of simulation, the correlation.
    """
    named = scores.with_columns(
        against=pl.when("is_shuffled")
        .then(pl.concat_str("negatives", pl.lit("_shuffled")))
        .otherwise("negatives")
    )
    summary: dict[str, float] = {}
    for (method, against), rows in named.group_by("method", "against", maintain_order=True):
        measure = "correlation" if str(method).startswith("simulation") else "auroc"
        summary |= covered_mean(rows, measure, f"mean_{measure}_{method}_{against}")
    return summary
