"""New tokens under a dictionary that stays: coefficients in one pass, no fit.

    minimise over Y >= 0   ½‖A / c - Y Z‖² + Σ p(Y)        Z and c from the fit before

with the penalty p of the fit (semi_nmf.py). Each token is solved by itself, so tokens that were
there before get the coefficients they had (to the tolerance of the solve), whatever is new beside
them. For methods whose coefficients come from this solve: snmf, random, permuted. Fits that go on
from a dictionary are in methods.py.
"""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from assets.factorization.config import FitConfig
from assets.factorization.factorization import Factorization, Factors, FitTask, measured
from assets.factorization.inputs import FactorizationError, as_matrix
from assets.factorization.snmf_method import estimator_with


def project_tokens(
    activations: Float[Tensor, "n_tokens d"],
    fit: FitConfig,
    dictionary: Float[Tensor, "k d"],
    scale: float,
    *,
    is_massive: Bool[Tensor, " n_tokens"] | None = None,
    n_tokens_fit: int | None = None,
) -> Factorization:
    """Coefficients of all tokens for a dictionary of unit (or zero) rows.

    `scale` is c, the mean row norm of the tokens that the dictionary was fitted on, of which there
    were `n_tokens_fit`. explained_variance and l0 are over the tokens that aren't massive. Raises
    FactorizationError for another width, and for a method whose coefficients are no such solve.
    """
    if not fit.is_sparse:
        raise FactorizationError(
            f"method {fit.method!r} found; expected snmf, random or permuted: coefficients of "
            "other methods can't be solved for a dictionary alone"
        )
    matrix = as_matrix(activations)
    if matrix.shape[1] != dictionary.shape[1]:
        raise FactorizationError(
            f"found activations of width {matrix.shape[1]}; the dictionary was fitted on width "
            f"{dictionary.shape[1]}: refit"
        )
    rows = as_matrix(dictionary).to(matrix)
    begin = time.perf_counter()
    solved = estimator_with(fit, rows, scale).solve(matrix)
    seconds = time.perf_counter() - begin
    reason = "dictionary kept; coefficients of all tokens solved"
    if not solved.is_converged:
        reason += f", {solved.n_unconverged_tokens} still moving after {solved.n_sweeps} sweeps"
    if is_massive is None:
        is_massive = torch.zeros(len(matrix), dtype=torch.bool)
    is_fit = ~is_massive.to(device=matrix.device, dtype=torch.bool)
    if not is_fit.any():
        raise FactorizationError(
            f"all {len(matrix)} tokens are flagged massive; none can be measured"
        )
    task = FitTask(
        activations=matrix,
        is_fit=is_fit,
        fit=fit,
        seed=fit.seed,
        concepts=None,
        on_iteration=None,
    )
    factors = Factors(
        dictionary=rows,
        coefficients=(solved.coefficients.t() * scale).contiguous(),
        n_iter=solved.n_sweeps,
        is_converged=solved.is_converged,
        stop_reason=reason,
        objective_trace=[],
        feature_names=[None] * len(rows),
    )
    projected = measured(task, factors, seconds, int(is_massive.sum()))
    return projected if n_tokens_fit is None else replace(projected, n_tokens_fit=n_tokens_fit)
