"""The TopK sparse autoencoder as a method: trained here, or a public one read from a folder.

    A ≈ coefficients @ dictionary + offset,   coefficients = TopK(relu((A - offset) W_enc + b_enc))

with the decoder's rows as dictionary and its bias as offset (Gao et al. 2024, arXiv 2406.04093).
The training is topk_training.py; public SAEs are public_sae.py.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from assets.factorization.factorization import Factors, FitTask
from assets.factorization.inputs import check_rank
from assets.factorization.public_sae import fit_public_sae
from assets.factorization.topk_training import TopKSettings, TopKTraining, train_topk


def fit_sae(task: FitTask) -> Factors:
    """An autoencoder trained on the fit's tokens, or the one that the fit's `path` names."""
    if task.fit.path is not None:
        return fit_public_sae(task)
    sample = task.activations[task.is_fit]
    training = train_topk(sample, sample, settings_of(task, is_tied=True), task.on_iteration)
    return topk_factors(task, training, task.activations)


def settings_of(task: FitTask, *, is_tied: bool) -> TopKSettings:
    """The training that the task's settings describe; its rank is at most the fit's tokens."""
    n_tokens = int(task.is_fit.sum())
    check_rank(task.rank, n_tokens)
    return TopKSettings.for_fit(
        task.rank,
        n_tokens,
        active_features=task.fit.active_features,
        learning_rate=task.fit.learning_rate,
        batch_tokens=task.fit.batch_tokens,
        max_epochs=task.fit.max_iter,
        tol=task.fit.tolerance,
        seed=task.seed,
        is_tied=is_tied,
    )


def topk_factors(
    task: FitTask, training: TopKTraining, inputs: Float[Tensor, "n_tokens d_in"]
) -> Factors:
    """The trained weights in the common form, with coefficients of all tokens' `inputs`."""
    encoder = training.weights.as_encoder()
    return Factors(
        dictionary=training.weights.dictionary,
        coefficients=encoder.encode(inputs),
        n_iter=len(training.objective_trace),
        is_converged=training.is_converged,
        stop_reason=training.stop_reason,
        objective_trace=training.objective_trace,
        explained_variance_trace=training.explained_variance_trace,
        feature_names=[None] * task.rank,
        offset=training.weights.offset,
        encoder=encoder,
    )
