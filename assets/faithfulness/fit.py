"""A fit to be measured: what the lake holds of it, and the mean row that it is set beside.

How it is measured is measure.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from assets.activations.shards import ActivationReader


@dataclass(frozen=True)
class Fit:
    """A fit as the lake has it: dictionary row i is the feature `feature_ids[i]`.

    `coefficients` has the columns row, feature_id and coefficient; `mean_row` is the site's mean
    over the sample's tokens that are not massive.
    """

    feature_ids: Sequence[int]
    dictionary: Float[Tensor, "k d"]
    coefficients: pl.DataFrame
    offset: Float[Tensor, " d"] | None
    mean_row: Float[Tensor, " d"]


def mean_row_of(reader: ActivationReader, is_kept: Sequence[bool]) -> Float[Tensor, " d"]:
    """Mean of the rows that are kept, one shard in memory at a time, summed in float64.

    Raises ValueError when none is kept.
    """
    kept = torch.tensor(is_kept, dtype=torch.bool)
    if not kept.any():
        raise ValueError(
            f"none of the {len(kept)} tokens is left to average; raise massive_norm_ratio"
        )
    total = torch.zeros(reader.width, dtype=torch.float64)
    for first_row, rows in reader.iter_shards(torch.float32):
        total += rows[kept[first_row : first_row + len(rows)]].sum(dim=0, dtype=torch.float64)
    return (total / kept.sum()).float()
