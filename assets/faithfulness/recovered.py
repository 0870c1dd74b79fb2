"""Cross-entropy recovered: how much of what a site is worth survives a replacement of its rows.

    recovered = (CE_zero − CE_replaced) / (CE_zero − CE_base)

with cross-entropies in nats averaged over all predicted tokens of the sample. 1: as good as the
model's own rows; 0: no better than nothing; it may lie outside [0, 1]. Used for sparse autoencoders
since Bricken et al. 2023, "Towards Monosemanticity". Where zeroing costs nothing the ratio means
nothing, and is NULL with the reason.

The interval is t over documents, since the tokens of one are alike, of the linearized ratio
(assets/shared/small_sample_intervals.py). There is none for one document, where documents show no
spread, or where the interval of CE_zero − CE_base itself holds 0: one layer of a deep model is
often worth so little that a sample of few documents has none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float

from assets.faithfulness.replacements import REPLACEMENTS
from assets.faithfulness.tables import FAITHFULNESS
from assets.shared.small_sample_intervals import CONFIDENCE, holds_zero, ratio_of, t_interval


@dataclass(frozen=True)
class Recovered:
    """The share and its interval, or why there is none."""

    value: float | None
    low: float | None
    high: float | None
    reason: str | None


def cross_entropy_recovered(
    base: Float[np.ndarray, " n_documents"],
    zero: Float[np.ndarray, " n_documents"],
    replaced: Float[np.ndarray, " n_documents"],
) -> Recovered:
    """Recovered share of summed losses by document (the token counts cancel out)."""
    worth, kept = zero - base, zero - replaced
    if not worth.sum() > 0:
        return Recovered(
            None, None, None, "zeroing the site does not raise the cross-entropy of the sample"
        )
    found = ratio_of(kept, worth)
    if len(worth) == 1:
        return Recovered(found.value, None, None, "no interval: one document")
    interval = t_interval(found, CONFIDENCE)
    if interval is None:
        reason = "no interval: every document recovers the same share"
        return Recovered(found.value, None, None, reason)
    if holds_zero(worth, CONFIDENCE):
        reason = "no interval: that of what zeroing costs holds 0; raise faithfulness.n_documents"
        return Recovered(found.value, None, None, reason)
    return Recovered(found.value, *interval, None)


def faithfulness_frame(documents: pl.DataFrame, *, seed: int) -> pl.DataFrame:
    """Rows of `faithfulness`, one a replacement, without site and fit.

    `documents` are rows of `faithfulness_documents`: of each document, all REPLACEMENTS.
    """
    runs = {name: documents.filter(replacement=name) for name in REPLACEMENTS}
    n_tokens = int(runs["zero"]["n_tokens"].sum())
    base = runs["zero"]["cross_entropy_base"].to_numpy()
    zero = runs["zero"]["cross_entropy_replaced"].to_numpy()
    rows = []
    for name, of_replacement in runs.items():
        replaced = of_replacement["cross_entropy_replaced"].to_numpy()
        recovered = cross_entropy_recovered(base, zero, replaced)
        rows.append(
            {
                "replacement": name,
                "n_documents": len(of_replacement),
                "n_tokens": n_tokens,
                "cross_entropy_base": float(base.sum()) / n_tokens,
                "cross_entropy_zero": float(zero.sum()) / n_tokens,
                "cross_entropy_replaced": float(replaced.sum()) / n_tokens,
                "recovered": recovered.value,
                "recovered_low": recovered.low,
                "recovered_high": recovered.high,
                "kl_nats": float(of_replacement["kl_nats"].to_numpy().sum()) / n_tokens,
                "seed": seed,
                "status": "undefined" if recovered.value is None else "ok",
                "reason": recovered.reason,
            }
        )
    schema = {
        c.name: c.polars_type
        for c in FAITHFULNESS.columns
        if c.name not in FAITHFULNESS.partition_by
    }
    return pl.DataFrame(rows, schema=schema)
