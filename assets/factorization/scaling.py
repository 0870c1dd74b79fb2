"""By what a fit divides activations: one scale for all, and less for quiet neurons.

With c the mean row norm of A and r_j the root mean square of neuron j, SNMF is fitted on

    A_ij / (c s_j),     s_j ∝ r_j^p,     Σ_j r_j² / s_j² = Σ_j r_j²

c makes a coefficient penalty mean the same at every layer and model. p = 0 leaves neurons as they
are; p = 1 gives all the same energy. In between, a few loud neurons no longer decide which
features are found (docs/decisions.md has the ablation). The dictionary is scaled back, and
coefficients are always solved for A / c.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from assets.factorization.inputs import nothing_to_factorize
from assets.factorization.token_blocks import TokenBlocks, each_block

# Silent neurons count as if they had this share of the mean root mean square.
QUIETEST = 1e-3
# Rows widened to float32 at a time.
ROW_CHUNK = 1_024


@dataclass(frozen=True)
class Scales:
    """c and s; the fit divides by `divisor` = c s."""

    mean_row_norm: float
    columns: Float[Tensor, " d"]

    @property
    def divisor(self) -> Float[Tensor, " d"]:
        return self.columns * self.mean_row_norm


def measure_scales(blocks: TokenBlocks, power: float) -> Scales:
    """One pass over the activations. Raises FactorizationError where all are zero."""
    norm_sum = 0.0
    squares: Tensor | None = None
    dtype = torch.float32
    for block in each_block(blocks):
        rows = blocks.rows(block)
        if squares is None:
            dtype = torch.float64 if rows.dtype == torch.float64 else torch.float32
            squares = torch.zeros(blocks.width, dtype=torch.float64, device=rows.device)
        for begin in range(0, rows.shape[0], ROW_CHUNK):
            part = rows[begin : begin + ROW_CHUNK].to(dtype)
            square = part.square()
            norm_sum += float(square.sum(dim=1).sqrt_().sum(dtype=torch.float64))
            squares += square.sum(dim=0, dtype=torch.float64)
    n_tokens = sum(blocks.sizes)
    if squares is None or norm_sum == 0:
        raise nothing_to_factorize(n_tokens)
    loudness = (squares / n_tokens).sqrt()
    columns = loudness.clamp(min=float(QUIETEST * loudness.mean())) ** power
    columns *= float(((loudness / columns).square().sum() / loudness.square().sum()).sqrt())
    return Scales(norm_sum / n_tokens, columns.to(dtype))
