"""A fit's steering scores in a few numbers, for an asset's metadata: means with their coverage."""

from __future__ import annotations

from typing import Any

import polars as pl

from assets.shared.covered_mean import covered_mean


def score_summary(scores: pl.DataFrame) -> dict[str, Any]:
    """`mean_score_by_sign`, of each kind of label, and `judge`, how their ratings were read.

    `scores` are rows of `steering_scores`.
    """
    of_sign = scores.sort("sign", "label_kind").group_by("sign", "label_kind", maintain_order=True)
    means = {f"{sign} {kind}": covered_mean(rows, "score") for (sign, kind), rows in of_sign}
    return {"mean_score_by_sign": means, "judge": sorted(set(scores["judge"]))}
