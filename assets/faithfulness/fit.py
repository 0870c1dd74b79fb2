"""A fit to be measured: what the lake holds of it.

How it is measured is measure.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Fit:
    """A fit as the lake has it: dictionary row i is the feature `feature_ids[i]`.

    `coefficients` has the columns row, feature_id and coefficient; `mean_row` is the mean of the
    tokens that the dictionary was fitted on.
    """

    feature_ids: Sequence[int]
    dictionary: Float[Tensor, "k d"]
    coefficients: pl.DataFrame
    offset: Float[Tensor, " d"] | None
    mean_row: Float[Tensor, " d"]
