"""The SNMF estimator: scikit-learn's interface over the solvers, for notebooks and for the stage.

The mathematics is in coordinate_solver.py (default), multiplicative_solver.py (the paper's) and
coefficient_solver.py; this file chooses the solver and restores units. A matrix in memory and a
stream of blocks (`fit_blocks`) take the same path. What is refused before a fit begins is
estimator_checks.py (settings, a start) and inputs.py (activations).
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from assets.factorization.coefficient_solver import SolvedCoefficients, solve_coefficients
from assets.factorization.coordinate_solver import ProgressCallback, SolverResult, fit_coordinate
from assets.factorization.estimator_checks import Solver, check_settings, start_rows
from assets.factorization.initialization import (
    SMALLEST_COEFFICIENT,
    Init,
    initial_coefficients,
    initial_dictionary,
)
from assets.factorization.inputs import (
    Activations,
    FactorizationError,
    as_matrix,
    check_rank,
    mean_row_norm,
    neuron_rows,
)
from assets.factorization.metrics import explained_variance
from assets.factorization.multiplicative_solver import fit_multiplicative
from assets.factorization.scaling import measure_scales
from assets.factorization.sparse_rows import keep_largest, support_size, unit_rows
from assets.factorization.token_blocks import (
    CoefficientStore,
    MatrixBlocks,
    TokenBlocks,
)


class SemiNMF(TransformerMixin, BaseEstimator):
    """Semi-non-negative matrix factorization with sparse features: A ≈ Y Z.

    With c the mean row norm of A, s and t its neurons' and tokens' loudness (scaling.py), p a
    penalty (coefficient_solver.py) and k rows of Z with at most ceil(keep_fraction * d) non-zeros,

        minimise over Y, Z   ½‖A / (c s t) - Y Z‖² + Σ p(Y)    subject to Y >= 0, unit rows of Z.

    Z is then scaled back by s, and Y solved for A / c. The coefficients given back are c Y, so that
    A ≈ coefficients @ components_ in the units of A.

    Parameters
    ----------
    n_components : rank k, at most the number of tokens.
    keep_fraction : share of neurons a feature may use.
    solver : "coordinate" (exact block-coordinate minimization) or "multiplicative" (the paper's
        updates, which know neither penalty nor s).
    coefficient_penalty : λ of p; the default keeps about a fifth of the coefficients above zero on
        MLP sites.
    penalty_concavity : κ of p, from 0 (the L1 norm) to below 1 (nearly a hard threshold).
    column_scaling : how much quiet neurons are raised: 0 not at all, 1 to equal energy.
    row_scaling : how much quiet tokens are raised: 0 not at all, 1 to equal norm.
    max_iter : most iterations. The paper's demo runs the multiplicative solver for 2,000.
    tol : stop when an iteration lowers the objective by less than this share of it (coordinate), or
        when 100 iterations in a row do not (multiplicative).
    init : "kmeans", "random" or "svd"; see initialization.py.
    random_state : seed of the initialization, the only randomness.

    Attributes
    ----------
    components_ : [k, d], as the input's kind; unit rows (a row of a feature that the multiplicative
        solver emptied is zero).
    objective_trace_ : list of the objective (in the scaled problem) after each iteration.
    explained_variance_trace_ : list of the explained variance (uncentred, in the scaled problem)
        after each iteration.
    explained_variance_, explained_variance_centered_ : of the tokens of the fit; the centred one is
        None when all rows are equal. Not set by `fit_blocks`.
    n_iter_, is_converged_, stop_reason_ : how the fit ended.
    scale_ : c.
    n_dead_ : features whose coefficients are zero on every token. Not set by `fit_blocks`.
    n_features_in_ : d.

    float16, bfloat16 and integer input is computed in float32, float64 in float64, on the device of
    the input. Source: Shafran, Geiger and Geva (2025); DESIGN.md section 5.
    """

    components_: Activations
    objective_trace_: list[float]
    explained_variance_trace_: list[float]
    explained_variance_: float | None
    explained_variance_centered_: float | None
    n_iter_: int
    is_converged_: bool
    stop_reason_: str
    scale_: float
    n_dead_: int
    n_features_in_: int

    def __init__(
        self,
        n_components: int = 100,
        *,
        keep_fraction: float = 0.01,
        solver: Solver = "coordinate",
        coefficient_penalty: float = 0.025,
        penalty_concavity: float = 0.7,
        column_scaling: float = 0.55,
        row_scaling: float = 0.3,
        max_iter: int = 200,
        tol: float = 3e-4,
        init: Init = "kmeans",
        random_state: int = 0,
    ) -> None:
        self.n_components = n_components
        self.keep_fraction = keep_fraction
        self.solver: Solver = solver
        self.coefficient_penalty = coefficient_penalty
        self.penalty_concavity = penalty_concavity
        self.column_scaling = column_scaling
        self.row_scaling = row_scaling
        self.max_iter = max_iter
        self.tol = tol
        self.init: Init = init
        self.random_state = random_state

    def fit(
        self,
        X: Activations,
        y: object = None,
        *,
        start: Activations | None = None,
        on_iteration: ProgressCallback | None = None,
    ) -> SemiNMF:
        """Fit the factors to activations [n_tokens, d]; returns the estimator.

        `start` [k, d] is a dictionary to go on from (a warm start) in place of `init`.
        `on_iteration(iteration, objective)` is called after each iteration. Raises
        FactorizationError (a ValueError) for NaN or infinite rows (naming them), all-zero
        activations, and a rank above the number of tokens.
        """
        self.fit_transform(X, y, start=start, on_iteration=on_iteration)
        return self

    def fit_transform(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        X: Activations,
        y: object = None,
        *,
        start: Activations | None = None,
        on_iteration: ProgressCallback | None = None,
    ) -> Activations:
        """Fit, and return the coefficients [n_tokens, k] of the same activations."""
        check_settings(self)
        matrix = as_matrix(X)
        if self.solver == "multiplicative":
            coefficients = self._fit_multiplicative(matrix, start, on_iteration)
        else:
            self.fit_blocks(MatrixBlocks(matrix), start=start, on_iteration=on_iteration)
            solved = self.solve(matrix)
            coefficients = solved.coefficients
            self.stop_reason_ = solved_reason(self.stop_reason_, solved.n_unconverged_tokens)
        self.n_dead_ = int((~(coefficients > 0).any(dim=1)).sum())
        coefficients = coefficients.t() * self.scale_
        explained = explained_variance(
            matrix, coefficients, torch.as_tensor(self.components_).to(matrix)
        )
        self.components_ = _like(X, torch.as_tensor(self.components_))
        self.explained_variance_ = explained.uncentred
        self.explained_variance_centered_ = explained.centred
        return _like(X, coefficients)

    def fit_blocks(
        self,
        blocks: TokenBlocks,
        *,
        start: Activations | None = None,
        store: CoefficientStore | None = None,
        on_iteration: ProgressCallback | None = None,
    ) -> SemiNMF:
        """Fit the dictionary by passes over blocks of tokens; memory is one block and the factors.

        `store` keeps the coefficients between passes: ScratchStore on disk, by default in memory.
        The multiplicative solver needs the whole matrix and raises FactorizationError here.
        """
        check_settings(self)
        if self.solver != "coordinate":
            raise FactorizationError(
                f"solver {self.solver!r} found for a fit by blocks of tokens; expected "
                "'coordinate': the multiplicative updates need all activations in memory"
            )
        check_rank(self.n_components, sum(blocks.sizes))
        scales = measure_scales(blocks, self.column_scaling, self.row_scaling)
        divisor = scales.divisor
        size = support_size(self.keep_fraction, blocks.width)
        generator = torch.Generator().manual_seed(self.random_state)
        if start is None:
            dictionary = initial_dictionary(
                blocks, divisor, self.n_components, size, self.init, generator
            )
        else:
            given = start_rows(start, self.n_components, blocks.width).to(scales.columns)
            dictionary = unit_rows(keep_largest(given / scales.columns, size))
        result = fit_coordinate(
            blocks,
            divisor,
            dictionary,
            size,
            self.coefficient_penalty,
            concavity=self.penalty_concavity,
            is_warm=start is not None,
            max_iter=self.max_iter,
            tol=self.tol,
            store=store,
            on_iteration=on_iteration,
        )
        self._keep(result, scales.mean_row_norm)
        self.components_ = unit_rows(result.dictionary * scales.columns)
        return self

    def transform(self, X: Activations) -> Activations:
        """Non-negative coefficients [n_tokens, k] of activations under the fitted dictionary.

        Solved to convergence for each token by itself, with the penalty of the fit (0 for the
        multiplicative solver); all-zero rows get zeros.
        """
        return _like(X, self.solve(as_matrix(X)).coefficients.t() * self.scale_)

    def solve(self, matrix: Tensor) -> SolvedCoefficients:
        """`transform` with its convergence record; coefficients are in scaled units, transposed."""
        check_is_fitted(self, "components_")
        if matrix.shape[1] != self.n_features_in_:
            raise FactorizationError(
                f"found activations of width {matrix.shape[1]}; the dictionary was fitted on width "
                f"{self.n_features_in_}"
            )
        neurons = neuron_rows(matrix, self.scale_)
        return solve_coefficients(
            neurons,
            torch.as_tensor(self.components_).to(neurons),
            support_size(self.keep_fraction, self.n_features_in_),
            self.effective_penalty,
            concavity=self.penalty_concavity if self.effective_penalty else 0.0,
        )

    @property
    def effective_penalty(self) -> float:
        """λ as the solver uses it: the multiplicative one knows none."""
        return self.coefficient_penalty if self.solver == "coordinate" else 0.0

    def _fit_multiplicative(
        self, matrix: Tensor, start: Activations | None, on_iteration: ProgressCallback | None
    ) -> Tensor:
        """Yᵀ in scaled units."""
        check_rank(self.n_components, matrix.shape[0])
        scale = mean_row_norm(matrix)
        neurons = neuron_rows(matrix, scale)
        size = support_size(self.keep_fraction, neurons.shape[0])
        if start is None:
            generator = torch.Generator().manual_seed(self.random_state)
            first = initial_coefficients(neurons, self.n_components, self.init, generator)
        else:
            given = start_rows(start, self.n_components, neurons.shape[0])
            rows = unit_rows(keep_largest(given, size))
            first = solve_coefficients(neurons, rows.to(neurons), size, 0.0).coefficients
            first.clamp_(min=SMALLEST_COEFFICIENT)
        result, coefficients = fit_multiplicative(
            neurons, first, size, max_iter=self.max_iter, tol=self.tol, on_iteration=on_iteration
        )
        self._keep(result, scale)
        return coefficients

    def _keep(self, result: SolverResult, scale: float) -> None:
        self.scale_ = scale
        self.components_ = result.dictionary
        self.n_features_in_ = result.dictionary.shape[1]
        self.objective_trace_ = result.objective_trace
        self.explained_variance_trace_ = result.explained_variance_trace
        self.n_iter_ = len(result.objective_trace)
        self.is_converged_ = result.is_converged
        self.stop_reason_ = result.stop_reason


def solved_reason(stop_reason: str, n_unconverged_tokens: int) -> str:
    """Why a fit ended, and how many tokens' final coefficients were still moving."""
    if not n_unconverged_tokens:
        return stop_reason
    return f"{stop_reason}; the final coefficients of {n_unconverged_tokens} tokens still moved"


def _like(given: Activations, values: Tensor) -> Activations:
    """`values` as a contiguous tensor or array, as the input was."""
    values = values.contiguous()
    return values if isinstance(given, Tensor) else np.asarray(values.cpu())
