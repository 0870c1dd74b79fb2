"""The mean activation of the tokens that a dictionary is fitted on.

It stays with the dictionary while that stays (projection.py), so a few new documents move nothing
that is measured with it.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

ROWS_AT_ONCE = 4096


def mean_row_of(
    rows: Iterable[Float[Tensor, "n_rows d"]], is_kept: Bool[Tensor, " n_tokens"]
) -> Float[Tensor, " d"]:
    """Mean of the rows that are kept, summed in float64 over pieces of any size, in token order.

    Raises ValueError when none is kept, and when rows and tokens differ in number.
    """
    is_kept = is_kept.cpu()
    if not is_kept.any():
        raise ValueError(
            f"none of the {len(is_kept)} tokens is left to average; raise massive_norm_ratio"
        )
    total: Tensor | float = 0.0
    begin = 0
    for piece in rows:
        # Few at once: what is kept is a copy.
        for some in piece.split(ROWS_AT_ONCE):
            kept = is_kept[begin : begin + len(some)].to(some.device)
            begin += len(some)
            total = total + some[: len(kept)][kept].sum(dim=0, dtype=torch.float64)
    if begin != len(is_kept):
        raise ValueError(
            f"{begin} activation rows found for {len(is_kept)} tokens; expected one each: "
            "materialize the site's activations again"
        )
    assert isinstance(total, Tensor)
    return (total / is_kept.sum()).float().cpu()
