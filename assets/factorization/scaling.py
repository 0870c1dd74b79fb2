"""By what a fit divides activations: one scale for all, less for quiet neurons and quiet tokens.

With c the mean row norm of A and r_j the root mean square of neuron j, SNMF is fitted on

    A_ij / (c s_j t_i),     s_j ∝ r_j^p,     t_i ∝ ‖a_i‖^q

s and t such that the mean row norm stays 1 and the neurons' energies add up to what they were. c
makes a coefficient penalty mean the same at every layer and model. p = 0 leaves neurons as they
are, p = 1 gives all the same energy; q = 0 leaves tokens as they are, q = 1 gives all the same
norm. In between, neither a few loud neurons nor a few loud tokens decide which features are found
(docs/decisions.md has the ablation). The dictionary is scaled back, and coefficients are always
solved for A / c.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from assets.factorization.inputs import FactorDivisor, nothing_to_factorize, row_lengths
from assets.factorization.token_blocks import TokenBlocks, each_block

# Silent neurons count as if they had this share of the mean root mean square.
QUIETEST = 1e-3
# Rows widened to float32 at a time.
ROW_CHUNK = 1_024


@dataclass(frozen=True)
class Scales:
    """c, s and t; the fit divides by `divisor` = c s t."""

    mean_row_norm: float
    columns: Float[Tensor, " d"]
    row_power: float
    row_norm: float

    @property
    def divisor(self) -> FactorDivisor:
        return FactorDivisor(self.columns * self.mean_row_norm, self.row_power, self.row_norm)

    def of_rows(self, rows: Float[Tensor, "n_tokens d"]) -> Float[Tensor, " n_tokens"]:
        """t of tokens in the units of A."""
        return (row_lengths(rows) / self.row_norm) ** self.row_power


def measure_scales(blocks: TokenBlocks, power: float, row_power: float = 0.0) -> Scales:
    """p = `power`, q = `row_power`; one pass. Raises FactorizationError where all are zero."""
    norm_sum = scaled_norm_sum = 0.0
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
            norms = square.sum(dim=1).sqrt_()
            norm_sum += float(norms.sum(dtype=torch.float64))
            if row_power:
                weights = torch.where(norms > 0, norms, 1.0).pow_(-row_power)
                scaled_norm_sum += float((norms * weights).sum(dtype=torch.float64))
                square.mul_(weights.square_()[:, None])
            squares += square.sum(dim=0, dtype=torch.float64)
    n_tokens = sum(blocks.sizes)
    if squares is None or norm_sum == 0:
        raise nothing_to_factorize(n_tokens)
    # Σ ‖a_i‖ (row_norm / ‖a_i‖)^q = Σ ‖a_i‖ gives row_norm.
    gain = norm_sum / scaled_norm_sum if row_power else 1.0
    row_norm = gain ** (1 / row_power) if row_power else 1.0
    loudness = (squares / n_tokens).sqrt() * gain
    columns = loudness.clamp(min=float(QUIETEST * loudness.mean())) ** power
    columns *= float(((loudness / columns).square().sum() / loudness.square().sum()).sqrt())
    return Scales(norm_sum / n_tokens, columns.to(dtype), row_power, row_norm)
