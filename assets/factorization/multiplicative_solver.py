"""SNMF by the paper's updates (for parity, and the baseline of benchmarks).

Shafran, Geiger and Geva (2025), "Decomposing MLP Activations into Interpretable Features via
Semi-Nonnegative Matrix Factorization", section 3, on Ding, Li and Jordan (2010):

    Z ← (Yᵀ Y + 1e-6 I)⁻¹ Yᵀ A                        least squares with ridge
    Z ← H_s(Z)                                        s largest magnitudes of each feature
    Y, Z ← Y / ‖y_j‖, Z ‖y_j‖                         unit coefficients, scale in the dictionary
    Y ← Y ⊙ √( ([A Zᵀ]⁺ + Y [Z Zᵀ]⁻) / ([A Zᵀ]⁻ + Y [Z Zᵀ]⁺ + 1e-6) )

There is no coefficient penalty, and because of H_s the loss may rise: the best factors seen are
returned, and the fit stops after PATIENCE iterations that bring nothing better, as in the paper's
published code. The trace holds ½‖A - Y Z‖² after each iteration.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from assets.factorization.coordinate_solver import (
    ProgressCallback,
    SolverResult,
    explained_share,
    penalized_objective,
)
from assets.factorization.sparse_rows import dictionary_products, keep_largest

RIDGE = 1e-6
DENOMINATOR_OFFSET = 1e-6
PATIENCE = 100


def fit_multiplicative(
    neurons: Float[Tensor, "d n_tokens"],
    coefficients: Float[Tensor, "k n_tokens"],
    size: int,
    *,
    max_iter: int,
    tol: float,
    patience: int = PATIENCE,
    on_iteration: ProgressCallback | None = None,
) -> tuple[SolverResult, Float[Tensor, "k n_tokens"]]:
    """Fit from initial positive coefficients; `neurons` is Aᵀ, contiguous.

    An iteration is better if it lowers the best objective by more than `tol` times its value;
    `patience` of them in a row that are not end the fit. The dictionary returned has unit rows,
    the scale moved back into the coefficients, which come second.
    """
    squared_norm = float(neurons.square().sum(dtype=torch.float64))
    token_products = coefficients @ neurons.t()
    gram = coefficients @ coefficients.t()
    trace: list[float] = []
    best_objective, n_stale = float("inf"), 0
    best_dictionary, best_coefficients = keep_largest(token_products, size), coefficients
    for iteration in range(max_iter):
        dictionary = keep_largest(least_squares_dictionary(gram, token_products), size)
        norms = gram.diagonal().sqrt()
        norms = torch.where(norms > 0, norms, torch.ones_like(norms))
        dictionary = dictionary * norms[:, None]
        coefficients = multiply_coefficients(
            coefficients / norms[:, None],
            dictionary_products(dictionary, neurons, size),
            dictionary @ dictionary.t(),
        )
        token_products = coefficients @ neurons.t()
        gram = coefficients @ coefficients.t()
        objective = penalized_objective(dictionary, token_products, gram, 0.0, squared_norm, 0.0)
        trace.append(objective)
        if on_iteration is not None:
            on_iteration(iteration, objective)
        n_stale = 0 if objective < best_objective * (1 - tol) else n_stale + 1
        if objective < best_objective:
            best_objective = objective
            best_dictionary, best_coefficients = dictionary, coefficients
        if n_stale >= patience:
            break
    lengths = torch.linalg.vector_norm(best_dictionary, dim=1)
    divisors = torch.where(lengths > 0, lengths, torch.ones_like(lengths))
    is_converged = n_stale >= patience
    if is_converged:
        reason = (
            f"no iteration of the last {patience} lowered the objective by {tol:g} of its value"
        )
    else:
        reason = f"max_iter = {max_iter} iterations reached"
    result = SolverResult(
        best_dictionary / divisors[:, None],
        trace,
        [explained_share(objective, squared_norm) for objective in trace],
        is_converged,
        reason,
    )
    return result, best_coefficients * lengths[:, None]


def least_squares_dictionary(
    gram: Float[Tensor, "k k"], token_products: Float[Tensor, "k d"]
) -> Float[Tensor, "k d"]:
    """(Yᵀ Y + 1e-6 I)⁻¹ Yᵀ A, from Yᵀ Y and Yᵀ A."""
    ridge = RIDGE * torch.eye(gram.shape[0], dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram + ridge, token_products)


def multiply_coefficients(
    coefficients: Float[Tensor, "k n_tokens"],
    products: Float[Tensor, "k n_tokens"],
    gram: Float[Tensor, "k k"],
) -> Float[Tensor, "k n_tokens"]:
    """The multiplicative update of Yᵀ, from Z Aᵀ and Z Zᵀ."""
    raised = products.clamp(min=0) + (-gram).clamp(min=0) @ coefficients
    lowered = (-products).clamp(min=0) + gram.clamp(min=0) @ coefficients
    return coefficients * torch.sqrt(raised / (lowered + DENOMINATOR_OFFSET))
