"""Which tokens a tree is tuned and measured on: all that are not massive, or a sample that fits.

Fine-tuning holds COPIES float32 copies of the activations at once (the rows, the rows less the
fit's offset, their scaled transpose, and that with the anchor's rows), so

    n = max_memory_gib · 2³⁰ / (COPIES · 4 · width)

tokens fit in the memory that the study allows a fit. Reading them is activations/shards.py.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

COPIES = 4
BYTES_PER_VALUE = 4
BYTES_PER_GIB = 2**30


def sampled_rows(
    is_kept: Bool[Tensor, " n_rows"],
    width: int,
    max_memory_gib: float,
    *,
    n_least: int,
    seed: int,
) -> Bool[Tensor, " n_rows"]:
    """The kept rows where they all fit in `max_memory_gib`, else as many of them at random as fit.

    At least `n_least` (as far as there are): fewer tokens than features determine no tree.
    """
    n_fitting = int(max_memory_gib * BYTES_PER_GIB / (COPIES * BYTES_PER_VALUE * width))
    n_chosen = max(n_fitting, n_least)
    kept = is_kept.nonzero().flatten()
    if len(kept) <= n_chosen:
        return is_kept
    order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(seed))
    chosen = torch.zeros_like(is_kept)
    chosen[kept[order[:n_chosen]]] = True
    return chosen
