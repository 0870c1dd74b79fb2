"""Cross-entropy recovered: how much of what a site is worth survives a replacement of its rows.

    recovered = (CE_zero − CE_replaced) / (CE_zero − CE_base)

with cross-entropies in nats averaged over all predicted tokens of the sample. 1: as good as the
model's own rows; 0: no better than nothing; it may lie outside [0, 1]. Used for sparse autoencoders
since Bricken et al. 2023, "Towards Monosemanticity". Where zeroing costs nothing the ratio means
nothing, and is NULL with the reason.

The interval is a percentile bootstrap over documents, since the tokens of one are alike. A resample
in which zeroing costs nothing counts as below the low end and above the high one; with 2.5 % such
resamples or more there is no interval. One layer of a deep model is often worth so little that a
sample of few documents has none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float

from assets.faithfulness.replacements import REPLACEMENTS
from assets.faithfulness.tables import FAITHFULNESS

INTERVAL = (2.5, 97.5)
"""Percentiles of the bootstrap that make the interval."""


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
    *,
    n_bootstrap: int,
    seed: int,
) -> Recovered:
    """Recovered share of summed losses by document (the token counts cancel out).

    Equal seeds resample the same documents, whatever the replacement. The interval is NULL with
    one document, or where zeroing costs nothing in too many resamples.
    """
    worth, kept = zero - base, zero - replaced
    if not worth.sum() > 0:
        return Recovered(
            None, None, None, "zeroing the site does not raise the cross-entropy of the sample"
        )
    value = float(kept.sum() / worth.sum())
    n = len(worth)
    if n == 1:
        return Recovered(value, None, None, "no interval: one document")
    drawn = np.random.default_rng(seed).integers(0, n, size=(n_bootstrap, n))
    worths, kepts = worth[drawn].sum(axis=1), kept[drawn].sum(axis=1)
    is_worth = worths > 0
    ratios = np.divide(kepts, worths, out=np.zeros_like(kepts), where=is_worth)
    low, high = (
        np.percentile(np.where(is_worth, ratios, worst), percentile, method=method)
        for worst, percentile, method in zip(
            (-np.inf, np.inf), INTERVAL, ("lower", "higher"), strict=True
        )
    )
    if not np.isfinite([low, high]).all():
        n_worthless = int((~is_worth).sum())
        reason = (
            f"no interval: zeroing costs nothing in {n_worthless} of {n_bootstrap} resamples; "
            "raise faithfulness.n_documents"
        )
        return Recovered(value, None, None, reason)
    return Recovered(value, float(low), float(high), None)


def faithfulness_frame(documents: pl.DataFrame, *, n_bootstrap: int, seed: int) -> pl.DataFrame:
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
        recovered = cross_entropy_recovered(
            base, zero, replaced, n_bootstrap=n_bootstrap, seed=seed
        )
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
