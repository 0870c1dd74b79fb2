"""NMF in the common form: what a non-negative dictionary finds in the positive parts.

    max(0, A) ≈ Y Z,   Y >= 0, Z >= 0

Lee and Seung (1999); solved by scikit-learn's coordinate descent on A divided by its mean row norm.
Explained variance is measured on A itself, negative parts with it, as for every method.
"""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Float
from sklearn.decomposition import NMF, non_negative_factorization
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torch import Tensor

from assets.factorization.config import FitConfig
from assets.factorization.factorization import Factors, FitTask
from assets.factorization.inputs import FactorizationError, check_rank, mean_row_norm
from assets.factorization.sparse_rows import unit_rows


def fit_nmf(task: FitTask) -> Factors:
    """Fitted on the positive parts of the fit's tokens; the library solves those of the others.

    Starts from the SVD where the rank allows (nndsvda), else at random by the seed. Raises
    FactorizationError where no activation is positive or the rank exceeds the fit's tokens.
    """
    positive = task.activations.clamp(min=0)
    is_fit = task.is_fit
    check_rank(task.rank, int(is_fit.sum()))
    if not (positive[is_fit] > 0).any():
        raise FactorizationError(
            "no activation of the fit's tokens is above zero, so the positive parts are all zero; "
            "leave nmf out of the study"
        )
    scale = mean_row_norm(positive[is_fit])
    scaled = (positive / scale).cpu().numpy()
    sample = scaled[is_fit.cpu().numpy()]
    model = NMF(
        n_components=task.rank,  # pyright: ignore[reportArgumentType]
        init="nndsvda" if task.rank <= min(sample.shape) else "random",
        max_iter=task.fit.max_iter,
        tol=task.fit.tolerance,
        random_state=task.seed,
    )
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(sample)
        # Each token's solve starts anew, so that its coefficients depend on the dictionary alone.
        solved = model.transform(scaled)
    components = torch.as_tensor(model.components_).to(task.activations)
    lengths = torch.linalg.vector_norm(components, dim=1)
    is_converged = model.n_iter_ < task.fit.max_iter
    return Factors(
        dictionary=unit_rows(components),
        coefficients=torch.as_tensor(solved).to(task.activations) * lengths * scale,
        n_iter=model.n_iter_,
        is_converged=is_converged,
        stop_reason="violation fell below tol" if is_converged else "max_iter reached",
        objective_trace=[],
        feature_names=[None] * task.rank,
    )


def solve_positive_parts(
    activations: Float[Tensor, "n_tokens d"], dictionary: Float[Tensor, "k d"], fit: FitConfig
) -> tuple[Float[Tensor, "n_tokens k"], int, int]:
    """Coefficients of other tokens for a fitted dictionary of unit rows, as the fit solves them.

    With them the iterations of the solve, and the tokens that were given up at max_iter (all or
    none: the library solves them together).
    """
    positive = activations.clamp(min=0)
    scale = float(torch.linalg.vector_norm(positive, dim=1).mean()) or 1.0
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        solved, _, n_iter = non_negative_factorization(
            (positive / scale).cpu().numpy(),
            H=dictionary.cpu().numpy(),
            n_components=len(dictionary),  # pyright: ignore[reportArgumentType]
            update_H=False,
            max_iter=fit.max_iter,
            tol=fit.tolerance,
        )
    n_left = len(positive) if n_iter >= fit.max_iter else 0
    return torch.as_tensor(solved).to(activations) * scale, n_iter, n_left
