"""New tokens under a dictionary that stays: coefficients in one pass, no fit.

    snmf, null controls       min over y >= 0 of ½‖a / c - y Z‖² + Σ p(y)    c and p from the fit
    nmf                       min over y >= 0 of ½‖max(0, a) - y Z‖²
    diff_means, neurons       y = max(0, Z a)
    pca                       y = max(0, Z (a - offset))
    sae, transcoder, kmeans   by the fit's encoder (encoder.py)

Each token is solved by itself, and tokens whose rows are what they were are not solved at all: they
have the coefficients they had, to the byte. A public SAE's latents are chosen anew. Whether a
dictionary stays is in refit.py; fits that go on from one are in methods.py.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.sparse import csr_matrix
from torch import Tensor

from assets.factorization.config import FitConfig
from assets.factorization.encoder import Encoder
from assets.factorization.factorization import Factorization, Factors, FitTask, measured
from assets.factorization.inputs import FactorizationError, as_matrix
from assets.factorization.method_traits import ENCODED_METHODS
from assets.factorization.positive_parts import solve_positive_parts
from assets.factorization.snmf_method import estimator_with


@dataclass(frozen=True)
class KnownCoefficients:
    """Coefficients of the tokens that have them already; `is_known` says which those are."""

    coefficients: csr_matrix  # [n_tokens, k], rows of the others empty
    is_known: np.ndarray  # [n_tokens], bool

    def block(self, rows: slice, like: Tensor) -> tuple[Tensor, Bool[Tensor, " n_rows"]]:
        """Dense coefficients of some tokens, and which of them are known."""
        dense = torch.from_numpy(self.coefficients[rows].toarray()).to(like)
        return dense, torch.from_numpy(self.is_known[rows]).to(like.device)


@dataclass(frozen=True)
class KeptFit:
    """What a projection keeps of the fit before.

    `scale` is c, the mean row norm of the tokens that the dictionary was fitted on, of which there
    were `n_tokens_fit` (None: as many as are projected). `was_converged` is that fit's.
    """

    dictionary: Float[Tensor, "k d"]
    scale: float | None = None
    offset: Float[Tensor, " d"] | None = None
    encoder: Encoder | None = None
    feature_names: list[str | None] | None = None
    n_tokens_fit: int | None = None
    was_converged: bool = True
    known: KnownCoefficients | None = None

    def reason(self, n_solved: int, n_unconverged: int, n_sweeps: int) -> str:
        """How the projection ended, in words."""
        parts = [f"dictionary kept; coefficients of {n_solved} tokens solved"]
        if n_unconverged:
            parts.append(f"{n_unconverged} of them still moving after {n_sweeps} sweeps")
        if not self.was_converged:
            parts.append("the fit before had not converged")
        return ", ".join(parts)


@dataclass(frozen=True)
class ProjectedRows:
    """Coefficients of some tokens in the units of A; of `n_solved` of them they were solved."""

    coefficients: Float[Tensor, "n_rows k"]
    n_solved: int
    n_sweeps: int = 0
    n_unconverged: int = 0


def project_tokens(
    activations: Float[Tensor, "n_tokens d"],
    fit: FitConfig,
    kept: KeptFit,
    *,
    is_massive: Bool[Tensor, " n_tokens"] | None = None,
    is_held_out: Bool[Tensor, " n_tokens"] | None = None,
    input_activations: Float[Tensor, "n_tokens d_in"] | None = None,
) -> Factorization:
    """Coefficients of all tokens for a dictionary of unit (or zero) rows.

    `input_activations` are what a transcoder's encoder reads in place of the activations.
    explained_variance and l0 are over the tokens that a fit would use now: not the massive ones,
    nor those a supervised method holds out. Raises FactorizationError for another width, and where
    what gives the coefficients is not kept.
    """
    matrix = as_matrix(activations)
    inputs = matrix
    if fit.input_kind is not None:
        if input_activations is None or len(input_activations) != len(matrix):
            found = "none" if input_activations is None else f"{len(input_activations)} rows"
            raise FactorizationError(
                f"a projection of {fit.key} reads {fit.input_kind} of each of the {len(matrix)} "
                f"tokens; found {found}: give input_activations"
            )
        inputs = as_matrix(input_activations)
    check_projection(fit, kept, matrix.shape[1], inputs.shape[1])
    rows = as_matrix(kept.dictionary).to(matrix)
    n_tokens = len(matrix)
    massive = torch.zeros(n_tokens, dtype=torch.bool) if is_massive is None else is_massive.bool()
    is_fit = ~massive.to(matrix.device)
    if not is_fit.any():
        raise FactorizationError(f"all {n_tokens} tokens are flagged massive; none can be measured")
    if is_held_out is not None and fit.is_supervised:
        is_fit &= ~is_held_out.to(is_fit)
    begin = time.perf_counter()
    solved = projected_rows(matrix, slice(0, n_tokens), fit, kept, rows, inputs)
    seconds = time.perf_counter() - begin
    task = FitTask(
        activations=matrix, is_fit=is_fit, fit=fit, seed=fit.seed, concepts=None, on_iteration=None
    )
    factors = Factors(
        dictionary=rows,
        coefficients=solved.coefficients.contiguous(),
        n_iter=solved.n_sweeps,
        is_converged=kept.was_converged and not solved.n_unconverged,
        stop_reason=kept.reason(solved.n_solved, solved.n_unconverged, solved.n_sweeps),
        objective_trace=[],
        feature_names=kept.feature_names or [None] * len(rows),
        offset=None if kept.offset is None else kept.offset.to(matrix),
        encoder=kept.encoder,
    )
    projected = measured(task, factors, seconds, int(massive.sum()))
    if kept.n_tokens_fit is None:
        return projected
    return replace(projected, n_tokens_fit=kept.n_tokens_fit)


def projected_rows(
    activations: Float[Tensor, "n_rows d"],
    rows: slice,
    fit: FitConfig,
    kept: KeptFit,
    dictionary: Float[Tensor, "k d"],
    inputs: Float[Tensor, "n_rows d_in"],
) -> ProjectedRows:
    """Coefficients of the site's tokens `rows`, whose activations are given: known or solved.

    `dictionary` is that of `kept`, on the device of the activations; `inputs` are the rows that an
    encoder reads.
    """
    if kept.known is None:
        return _solved_rows(activations, fit, kept, dictionary, inputs)
    coefficients, is_known = kept.known.block(rows, dictionary)
    is_new = ~is_known
    solved = _solved_rows(activations[is_new], fit, kept, dictionary, inputs[is_new])
    coefficients[is_new] = solved.coefficients
    return replace(solved, coefficients=coefficients)


def _solved_rows(
    activations: Float[Tensor, "n_rows d"],
    fit: FitConfig,
    kept: KeptFit,
    dictionary: Float[Tensor, "k d"],
    inputs: Float[Tensor, "n_rows d_in"],
) -> ProjectedRows:
    n_rows = len(activations)
    if not n_rows:
        return ProjectedRows(dictionary.new_zeros(0, len(dictionary)), 0)
    if kept.encoder is not None:
        return ProjectedRows(kept.encoder.encode(inputs), n_rows)
    if fit.is_sparse and kept.scale is not None:
        solved = estimator_with(fit, dictionary, kept.scale).solve(activations)
        coefficients = solved.coefficients.t() * kept.scale
        return ProjectedRows(coefficients, n_rows, solved.n_sweeps, solved.n_unconverged_tokens)
    if fit.method == "nmf":
        coefficients, n_iter, n_left = solve_positive_parts(activations, dictionary, fit)
        return ProjectedRows(coefficients, n_rows, n_iter, n_left)
    shifted = activations if kept.offset is None else activations - kept.offset.to(activations)
    return ProjectedRows((shifted @ dictionary.t()).clamp_(min=0), n_rows)


def check_projection(fit: FitConfig, kept: KeptFit, width: int, input_width: int) -> None:
    """Raise FactorizationError unless the method's coefficients follow from what is kept."""
    if fit.path is not None:
        raise FactorizationError(
            f"public SAE {fit.path!r} found; expected a method that is fitted here: the latents "
            "that are strongest are chosen anew, so refit"
        )
    if fit.method in ENCODED_METHODS and kept.encoder is None:
        raise FactorizationError(
            f"no encoder found for a projection of {fit.key}; expected that of the fit before, as "
            f"the dictionary alone gives no coefficients of method {fit.method!r}: refit"
        )
    if kept.encoder is not None and kept.encoder.weights.shape[1] != input_width:
        raise FactorizationError(
            f"found inputs of width {input_width}; the encoder of {fit.key} reads width "
            f"{kept.encoder.weights.shape[1]}: refit"
        )
    if fit.is_sparse and kept.scale is None:
        raise FactorizationError(
            f"no activation_scale found for a projection of {fit.key}; expected the mean row norm "
            "of the tokens the dictionary was fitted on: refit"
        )
    if width != kept.dictionary.shape[1]:
        raise FactorizationError(
            f"found activations of width {width}; the dictionary was fitted on width "
            f"{kept.dictionary.shape[1]}: refit"
        )
