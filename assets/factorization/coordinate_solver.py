"""SNMF by exact block-coordinate minimization (the default solver).

    minimise ½‖A - Y Z‖² + λ ΣY   subject to Y >= 0, rows of Z of unit L2 norm with <= s non-zeros

Two kinds of block, each replaced by its exact minimizer, so the objective never rises:

- y_j, all else fixed: max(0, y_j + A z_j - Y Z z_j - λ) (coefficient_solver.py);
- z_j together with the scale c of y_j, all else fixed. With w = c z_j and R the residual without
  feature j this is ½‖R - y_j wᵀ‖² + λ ‖w‖ Σy_j: w is the group-shrunk s-sparse least-squares row,
      w̃ = H_s(w_j + (Aᵀ y_j - Wᵀ Yᵀ y_j) / ‖y_j‖²),   w ← w̃ · max(0, 1 - λ Σy_j / (‖y_j‖² ‖w̃‖)),
  then z_j = w / ‖w‖ and y_j ← ‖w‖ y_j. (Keeping the largest magnitudes is optimal: the block's
  minimum falls with ‖w̃‖.) For λ = 0 it is the hierarchical alternating least squares update
  (Cichocki and Phan 2009) followed by H_s.

Per iteration only Yᵀ A is a dense pass over the activations: Z Aᵀ needs Z's non-zeros, and the loss
is ‖A‖² - 2⟨Z, YᵀA⟩ + ⟨Z Zᵀ, Yᵀ Y⟩. A dead feature (y_j = 0) does not enter the objective, so giving
it a new row changes nothing until the next exact y_j lowers the objective.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from assets.factorization.coefficient_solver import (
    FEATURE_BLOCK,
    solve_coefficients,
    sweep_coefficients,
)
from assets.factorization.sparse_rows import dictionary_products, keep_largest, unit_rows

# How often one feature may be given a new row, so that rows nobody needs don't keep a fit running.
MAX_RESEEDS = 5

ProgressCallback = Callable[[int, float], None]


@dataclass(frozen=True)
class SolverResult:
    """Factors and how the fit ended; coefficients are Yᵀ, in the units the solver was given."""

    dictionary: Float[Tensor, "k d"]
    coefficients: Float[Tensor, "k n_tokens"]
    objective_trace: list[float]
    explained_variance_trace: list[float]
    is_converged: bool
    stop_reason: str


def penalized_objective(
    dictionary: Float[Tensor, "k d"],
    token_products: Float[Tensor, "k d"],
    coefficient_gram: Float[Tensor, "k k"],
    coefficient_sum: float,
    squared_norm: float,
    penalty: float,
) -> float:
    """½‖A - Y Z‖² + λ ΣY by the trace identity, from Yᵀ A, Yᵀ Y, ΣY and ‖A‖²; never below 0."""
    gram = dictionary @ dictionary.t()
    explained = 2 * _inner(dictionary, token_products) - _inner(gram, coefficient_gram)
    return max(0.0, 0.5 * (squared_norm - explained)) + penalty * coefficient_sum


def explained_share(half_squared_error: float, squared_norm: float) -> float:
    """Explained variance 1 - ‖A - Y Z‖² / ‖A‖² from ½‖A - Y Z‖² (0 for an A of zeros)."""
    return 1.0 - 2.0 * half_squared_error / squared_norm if squared_norm else 0.0


def fit_coordinate(
    neurons: Float[Tensor, "d n_tokens"],
    dictionary: Float[Tensor, "k d"],
    size: int,
    penalty: float,
    *,
    max_iter: int,
    tol: float,
    on_iteration: ProgressCallback | None = None,
) -> SolverResult:
    """Fit from an initial dictionary with unit rows; `neurons` is Aᵀ, contiguous.

    Stops when an iteration lowers the objective by less than `tol` times its value. The
    coefficients are then solved to convergence for the final dictionary, which the last entry of
    the trace includes: what `transform` gives on the fit's tokens is what the fit returns.
    """
    dictionary = dictionary.clone()
    coefficients = neurons.new_zeros(dictionary.shape[0], neurons.shape[1])
    token_norms = torch.linalg.vector_norm(neurons, dim=0).square()
    squared_norm = float(token_norms.sum(dtype=torch.float64))
    reseeds_left = torch.full((dictionary.shape[0],), MAX_RESEEDS, device=neurons.device)
    trace: list[float] = []
    variance_trace: list[float] = []
    is_converged = False
    for iteration in range(max_iter):
        products = dictionary_products(dictionary, neurons, size)
        gram = dictionary @ dictionary.t()
        sweep_coefficients(coefficients, products, gram, penalty)
        is_dead = ~(coefficients > 0).any(dim=1)
        wants_row = is_dead & (reseeds_left > 0)
        n_reseeded = 0
        if wants_row.any():
            residuals = _residual_norms(coefficients, products, gram, token_norms)
            n_reseeded = reseed(
                dictionary, neurons, coefficients, wants_row, residuals, size, penalty
            )
            reseeds_left -= wants_row.long()
        token_products = coefficients @ neurons.t()
        coefficient_gram = coefficients @ coefficients.t()
        scales = sweep_dictionary(
            dictionary, token_products, coefficient_gram, coefficients.sum(dim=1), size, penalty
        )
        coefficients *= scales[:, None]
        coefficient_sum = float(coefficients.sum(dtype=torch.float64))
        objective = penalized_objective(
            dictionary,
            token_products * scales[:, None],
            coefficient_gram * torch.outer(scales, scales),
            coefficient_sum,
            squared_norm,
            penalty,
        )
        trace.append(objective)
        variance_trace.append(explained_share(objective - penalty * coefficient_sum, squared_norm))
        if on_iteration is not None:
            on_iteration(iteration, objective)
        if len(trace) > 1 and not n_reseeded:
            # The floor keeps an exact fit (objective at rounding level) from running on.
            floor = 1e-7 * squared_norm
            if trace[-2] - objective < tol * max(objective, floor):
                is_converged = True
                break
    solved = solve_coefficients(neurons, dictionary, size, penalty, start=coefficients)
    trace[-1] = min(
        trace[-1],
        penalized_objective(
            dictionary,
            solved.coefficients @ neurons.t(),
            solved.coefficients @ solved.coefficients.t(),
            float(solved.coefficients.sum(dtype=torch.float64)),
            squared_norm,
            penalty,
        ),
    )
    if is_converged:
        reason = f"the objective fell by less than {tol:g} of its value in an iteration"
    else:
        reason = f"max_iter = {max_iter} iterations reached"
    return SolverResult(
        dictionary, solved.coefficients, trace, variance_trace, is_converged, reason
    )


def sweep_dictionary(
    dictionary: Float[Tensor, "k d"],
    token_products: Float[Tensor, "k d"],
    coefficient_gram: Float[Tensor, "k k"],
    coefficient_sums: Float[Tensor, " k"],
    size: int,
    penalty: float,
) -> Float[Tensor, " k"]:
    """One exact update of every (z_j, scale of y_j), in order; `dictionary` changes in place.

    Takes Yᵀ A, Yᵀ Y and the sums of each y_j; returns the factor by which each y_j is to be
    multiplied (0: the penalty makes the feature not worth having). Dead features keep their row.
    """
    n_features = dictionary.shape[0]
    # Rows c_j z_j, so that the coefficients and their products stay as given during the sweep.
    scaled = dictionary.clone()
    energies = coefficient_gram.diagonal().tolist()
    shrinkage = (penalty * coefficient_sums).tolist()
    for start in range(0, n_features, FEATURE_BLOCK):
        block = slice(start, min(start + FEATURE_BLOCK, n_features))
        gradient = torch.addmm(token_products[block], coefficient_gram[block], scaled, alpha=-1)
        for i in range(block.stop - start):
            j = start + i
            if energies[j] <= 0:
                gradient[i] = 0
                continue
            if i:
                gradient[i].addmv_(gradient[:i].t(), coefficient_gram[j, start:j], alpha=-1)
            target = gradient[i].add_(scaled[j], alpha=energies[j])
            kept = target.abs().topk(size).indices
            values = target[kept]
            length = torch.linalg.vector_norm(values)
            # A feature that nothing of the residual supports keeps its row and loses its scale.
            is_supported = length > 0
            unit = values / torch.where(is_supported, length, 1.0)
            factor = ((length - shrinkage[j]) / energies[j]).clamp_(min=0)
            row = torch.zeros_like(target)
            row[kept] = unit
            dictionary[j] = torch.where(is_supported, row, dictionary[j])
            # The gradient is spent: its row now holds the change of the scaled row.
            gradient[i] = factor * row - scaled[j]
            scaled[j] = factor * row
    scales = torch.linalg.vector_norm(scaled, dim=1)
    return torch.where(coefficient_gram.diagonal() > 0, scales, torch.ones_like(scales))


def reseed(
    dictionary: Float[Tensor, "k d"],
    neurons: Float[Tensor, "d n_tokens"],
    coefficients: Float[Tensor, "k n_tokens"],
    wants_row: Bool[Tensor, " k"],
    residual_norms: Float[Tensor, " n_tokens"],
    size: int,
    penalty: float,
) -> int:
    """Point dead features at the tokens explained worst, in place; returns how many changed.

    The i-th dead feature gets the s largest neurons of the residual of the token with the i-th
    largest residual, if that direction alone would overcome the penalty.
    """
    features = wants_row.nonzero().flatten()
    tokens = residual_norms.topk(min(len(features), len(residual_norms))).indices
    features = features[: len(tokens)]
    residual = neurons[:, tokens].t() - coefficients[:, tokens].t() @ dictionary
    rows = keep_largest(residual, size)
    is_useful = torch.linalg.vector_norm(rows, dim=1) > penalty
    dictionary[features[is_useful]] = unit_rows(rows[is_useful])
    return int(is_useful.sum())


def _residual_norms(
    coefficients: Float[Tensor, "k n_tokens"],
    products: Float[Tensor, "k n_tokens"],
    gram: Float[Tensor, "k k"],
    token_norms: Float[Tensor, " n_tokens"],
) -> Float[Tensor, " n_tokens"]:
    """‖a_i - y_i Z‖² of every token, without forming Y Z."""
    return token_norms + (coefficients * (gram @ coefficients - 2 * products)).sum(dim=0)


def _inner(left: Tensor, right: Tensor) -> float:
    return float((left * right).sum(dtype=torch.float64))
