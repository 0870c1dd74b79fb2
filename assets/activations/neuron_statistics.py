"""How much each neuron of a site is used: the lazy neurons.

In trained transformers few of an MLP's neurons are active on any one token, and many hardly ever
(Li et al. 2022, "The Lazy Neuron Phenomenon", arXiv 2210.06313). There, with ReLU, active means
above zero. SiLU and GELU are never exactly zero, so here a neuron is active on a token when its
absolute value is above ACTIVE_SHARE of the row's largest: free of the site's scale, and the same
for every activation function. A neuron is lazy when active on fewer than LAZY_SHARE of the tokens,
dead when on none.

Counted over the tokens that aren't massive (statistics.py): a few sinks would carry every sum.
Sparsity of a row, not of a neuron, is statistics.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from assets.activations.shards import ActivationReader
from assets.activations.tables import NEURON_STATS

ACTIVE_SHARE = 0.1
"""A neuron is active above this share of its row's largest absolute value."""

LAZY_SHARE = 0.05
"""A neuron is lazy below this share of active tokens."""


@dataclass(frozen=True)
class NeuronStatistics:
    """One value a neuron, over `n_tokens` rows, in float64; `kurtosis` is NaN where constant."""

    n_tokens: int
    share_active: Float[Tensor, " width"]
    share_positive: Float[Tensor, " width"]
    mean_abs: Float[Tensor, " width"]
    max_abs: Float[Tensor, " width"]
    energy_share: Float[Tensor, " width"]
    kurtosis: Float[Tensor, " width"]

    @property
    def share_dead(self) -> float:
        return float((self.share_active == 0).double().mean())

    @property
    def share_lazy(self) -> float:
        """Share of neurons that are lazy, the dead ones with them."""
        return float((self.share_active < LAZY_SHARE).double().mean())


def neuron_statistics(
    reader: ActivationReader, is_kept: Bool[Tensor, " n_rows"]
) -> NeuronStatistics:
    """One pass over the shards, one shard in memory at a time, over the rows that are kept.

    Raises ValueError when none is kept, or `is_kept` has another length than the rows.
    """
    if is_kept.shape != (reader.n_rows,) or not is_kept.any():
        raise ValueError(
            f"{int(is_kept.sum())} of {len(is_kept)} rows kept, the reader has {reader.n_rows}; "
            "expected one flag a row and at least one row kept"
        )
    n_active, n_positive, total_abs, max_abs = (
        torch.zeros(reader.width, dtype=torch.float64) for _ in range(4)
    )
    power_sums = torch.zeros(4, reader.width, dtype=torch.float64)
    for first_row, rows in reader.iter_shards(torch.float32):
        rows = rows[is_kept[first_row : first_row + len(rows)]].double()
        if not len(rows):
            continue
        absolute = rows.abs()
        n_active += (absolute > ACTIVE_SHARE * absolute.amax(dim=1, keepdim=True)).sum(dim=0)
        n_positive += (rows > 0).sum(dim=0)
        total_abs += absolute.sum(dim=0)
        max_abs = torch.maximum(max_abs, absolute.amax(dim=0))
        power = torch.ones_like(rows)
        for degree in range(4):
            power *= rows
            power_sums[degree] += power.sum(dim=0)
    n = int(is_kept.sum())
    energy = power_sums[1]
    whole = energy.sum()
    return NeuronStatistics(
        n_tokens=n,
        share_active=n_active / n,
        share_positive=n_positive / n,
        mean_abs=total_abs / n,
        max_abs=max_abs,
        energy_share=energy / whole if whole > 0 else torch.zeros_like(energy),
        kurtosis=_kurtosis(power_sums / n),
    )


def neuron_frame(neurons: NeuronStatistics) -> pl.DataFrame:
    """Rows of `neuron_stats`, without the site."""
    width = len(neurons.share_active)
    schema = {
        c.name: c.polars_type
        for c in NEURON_STATS.columns
        if c.name not in NEURON_STATS.partition_by
    }
    return pl.DataFrame(
        {
            "neuron": range(width),
            "n_tokens": [neurons.n_tokens] * width,
            "share_active": neurons.share_active.tolist(),
            "share_positive": neurons.share_positive.tolist(),
            "mean_abs": neurons.mean_abs.tolist(),
            "max_abs": neurons.max_abs.tolist(),
            "energy_share": neurons.energy_share.tolist(),
            "kurtosis": pl.Series(neurons.kurtosis.tolist(), dtype=pl.Float64).fill_nan(None),
            "is_lazy": (neurons.share_active < LAZY_SHARE).tolist(),
            "is_dead": (neurons.share_active == 0).tolist(),
        },
        schema=schema,
    )


def _kurtosis(moments: Float[Tensor, "4 width"]) -> Float[Tensor, " width"]:
    """Fourth central moment over the squared variance, from the four raw moments."""
    first, second, third, fourth = moments
    variance = second - first.square()
    central = fourth - 4 * first * third + 6 * first.square() * second - 3 * first**4
    # Below this, what is left of the variance is rounding.
    is_constant = variance <= 1e-10 * second
    return torch.where(is_constant, torch.nan, central / variance.square())
