"""Activations as a solver wants them: checked, cast, scaled, one contiguous row a neuron.

A is divided by its mean row norm (one scale for the whole matrix), so that a coefficient penalty
means the same at every layer and model. Everything that can be wrong with an activation matrix is
found here, before a fit starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Activations: TypeAlias = Tensor | np.ndarray


@dataclass(frozen=True)
class FactorDivisor:
    """Divides a_ij by neurons_j (‖a_i‖ / row_norm)^row_power: by neuron, and by token."""

    neurons: Float[Tensor, " d"]
    row_power: float
    row_norm: float


# What activations are divided by: one scale, one a neuron, or also one a token.
Divisor: TypeAlias = float | Tensor | FactorDivisor

# How many offending rows an error names.
ROWS_NAMED = 5


class FactorizationError(ValueError):
    """The activations or settings admit no fit; the message says what was found and what to do."""


def as_matrix(activations: Activations) -> Float[Tensor, "n_tokens d"]:
    """A finite float32 tensor (float64 stays float64) on the device of the input.

    Raises FactorizationError unless the input is a two-dimensional, non-empty, real, finite matrix.
    """
    if isinstance(activations, Tensor):
        matrix = activations.detach()
    else:
        array = np.asarray(activations)
        if array.dtype.kind not in "fiub":
            raise FactorizationError(
                f"found activations of type {array.dtype}; expected real numbers"
            )
        matrix = torch.from_numpy(np.ascontiguousarray(array))
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise FactorizationError(
            f"found activations of shape {list(matrix.shape)}; expected [n_tokens, d] with at "
            "least one token and one neuron"
        )
    if matrix.is_complex():
        raise FactorizationError(f"found activations of type {matrix.dtype}; expected real numbers")
    matrix = matrix.to(torch.float64 if matrix.dtype == torch.float64 else torch.float32)
    check_finite(matrix)
    return matrix


def check_finite(rows: Float[Tensor, "n_rows d"], first_row: int = 0) -> None:
    """Raise FactorizationError naming the rows with NaN or infinity, counted from `first_row`."""
    # The largest magnitude of a row with NaN is NaN; one pass, and nothing of A's size is made.
    is_broken = ~torch.isfinite(torch.linalg.vector_norm(rows, ord=float("inf"), dim=1))
    if is_broken.any():
        broken = [first_row + row for row in is_broken.nonzero().flatten().tolist()]
        named = ", ".join(map(str, broken[:ROWS_NAMED]))
        named += ", …" if len(broken) > ROWS_NAMED else ""
        raise FactorizationError(
            f"NaN or infinity in {len(broken)} of {rows.shape[0]} activation rows (rows {named}); "
            "drop these tokens or capture them again in a wider dtype"
        )


def check_rank(n_components: int, n_tokens: int) -> None:
    """Raise FactorizationError unless 1 <= rank <= n_tokens."""
    if n_components < 1:
        raise FactorizationError(f"rank {n_components} found; expected at least 1")
    if n_components > n_tokens:
        raise FactorizationError(
            f"rank {n_components} exceeds the {n_tokens} tokens of the fit; lower the rank or add "
            "documents"
        )


def mean_row_norm(matrix: Float[Tensor, "n_tokens d"]) -> float:
    """Mean L2 norm of the rows, by which a fit divides A. All-zero activations are an error."""
    scale = float(torch.linalg.vector_norm(matrix, dim=1).mean(dtype=torch.float64))
    if scale == 0:
        raise nothing_to_factorize(matrix.shape[0])
    return scale


def nothing_to_factorize(n_tokens: int) -> FactorizationError:
    """The error for activations that are all zero."""
    return FactorizationError(
        f"all {n_tokens} activation rows are zero; there is nothing to factorize: check the "
        "activation site"
    )


def neuron_rows(
    matrix: Float[Tensor, "n_tokens d"], divisor: Divisor
) -> Float[Tensor, "d n_tokens"]:
    """(A / divisor)ᵀ with contiguous rows: the layout the solvers read.

    A tensor divides neuron by neuron. Half precision and integers become float32. All-zero rows
    stay zero.
    """
    dtype = torch.float64 if matrix.dtype == torch.float64 else torch.float32
    rows = torch.empty(matrix.shape[1], matrix.shape[0], dtype=dtype, device=matrix.device)
    rows.copy_(matrix.t())
    if isinstance(divisor, FactorDivisor):
        if divisor.row_power:
            lengths = row_lengths(rows.t())
            rows.div_((lengths / divisor.row_norm).pow_(divisor.row_power))
        divisor = divisor.neurons
    return rows.div_(divisor[:, None] if isinstance(divisor, Tensor) else divisor)


def divided_rows(
    matrix: Float[Tensor, "n_tokens d"], divisor: Divisor
) -> Float[Tensor, "n_tokens d"]:
    """A / divisor with contiguous rows, one a token; what `neuron_rows` gives, transposed."""
    dtype = torch.float64 if matrix.dtype == torch.float64 else torch.float32
    rows = matrix.to(dtype, copy=True).contiguous()
    if isinstance(divisor, FactorDivisor):
        if divisor.row_power:
            lengths = row_lengths(rows)
            rows.div_((lengths / divisor.row_norm).pow_(divisor.row_power)[:, None])
        divisor = divisor.neurons
    return rows.div_(divisor)


def row_lengths(rows: Float[Tensor, "n_tokens d"]) -> Float[Tensor, " n_tokens"]:
    """L2 norms of the rows, 1 for a row of zeros."""
    lengths = torch.linalg.vector_norm(rows, dim=1)
    return torch.where(lengths > 0, lengths, 1.0)
