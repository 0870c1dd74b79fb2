"""SNMF as a method of the stage: fitted on the ordinary tokens, coefficients for all of them."""

from __future__ import annotations

import torch

from assets.factorization.factorization import Factors, FitTask, scattered
from assets.factorization.semi_nmf import SemiNMF


def estimator_of(task: FitTask) -> SemiNMF:
    """The unfitted estimator that the task's settings describe."""
    fit = task.fit
    return SemiNMF(
        n_components=task.rank,
        keep_fraction=fit.keep_fraction,
        solver=fit.solver,
        coefficient_penalty=fit.coefficient_penalty,
        max_iter=fit.max_iter,
        tol=fit.tol,
        init=fit.init,
        random_state=task.seed,
    )


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
