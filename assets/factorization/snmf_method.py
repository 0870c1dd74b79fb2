"""SNMF as a method of the stage: fitted on the ordinary tokens, coefficients for all of them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from assets.factorization.config import FitConfig
from assets.factorization.factorization import Factors, FitTask, scattered
from assets.factorization.semi_nmf import SemiNMF


def estimator_of(task: FitTask) -> SemiNMF:
    """The unfitted estimator that the task's settings describe."""
    return snmf_estimator(task.fit, task.rank, task.seed)


def snmf_estimator(fit: FitConfig, rank: int, seed: int) -> SemiNMF:
    """The unfitted estimator of a fit's settings at some rank and seed."""
    return SemiNMF(
        n_components=rank,
        keep_fraction=fit.keep_fraction,
        solver=fit.solver,
        coefficient_penalty=fit.coefficient_penalty,
        penalty_concavity=fit.penalty_concavity,
        column_scaling=fit.column_scaling,
        row_scaling=fit.row_scaling,
        max_iter=fit.max_iter,
        tol=fit.tolerance,
        init=fit.init,
        random_state=seed,
    )


def estimator_with(
    fit: FitConfig, dictionary: Float[Tensor, "k d"], scale: float, seed: int = 0
) -> SemiNMF:
    """The estimator with a dictionary that is given, to solve coefficients as a fit's are.

    `scale` is the mean row norm by which activations are divided. Methods that run no SNMF fit
    (random) have the coordinate solver's penalty.
    """
    if not fit.is_iterative:
        fit = fit.model_copy(update={"solver": "coordinate"})
    model = snmf_estimator(fit, dictionary.shape[0], seed)
    model.components_ = dictionary
    model.scale_ = scale
    model.n_features_in_ = dictionary.shape[1]
    return model


def fit_snmf(task: FitTask) -> Factors:
    """Fit without the massive tokens, then solve the coefficients of those for the dictionary."""
    model = estimator_of(task)
    coefficients = torch.as_tensor(
        model.fit_transform(
            task.activations[task.is_fit],
            start=task.start_dictionary,
            on_iteration=task.on_iteration,
        )
    )
    if not task.is_fit.all():
        rest = torch.as_tensor(model.transform(task.activations[~task.is_fit]))
        coefficients = scattered(task.is_fit, coefficients, rest)
    return Factors(
        dictionary=torch.as_tensor(model.components_),
        coefficients=coefficients,
        n_iter=model.n_iter_,
        is_converged=model.is_converged_,
        stop_reason=model.stop_reason_,
        objective_trace=model.objective_trace_,
        explained_variance_trace=model.explained_variance_trace_,
        feature_names=[None] * task.rank,
    )
