"""The transcoder as a method: from what enters the MLP to what it writes.

    mlp_out ≈ coefficients @ dictionary + offset,
    coefficients = TopK(relu((mlp_in - mean) W_enc + b_enc))

Dunefsky, Chlenski, Nanda 2024, "Transcoders find interpretable LLM feature circuits"
(arXiv 2406.11944), section 3, with the TopK activation of Gao et al. in place of an L1 penalty.
Its features are directions of the site mlp_out, explained variance is that of mlp_out, and the
coefficients of a token follow from its mlp_in. The training is topk_training.py.
"""

from __future__ import annotations

from assets.factorization.factorization import Factors, FitTask
from assets.factorization.inputs import FactorizationError
from assets.factorization.sparse_autoencoder import settings_of, topk_factors
from assets.factorization.topk_training import train_topk


def fit_transcoder(task: FitTask) -> Factors:
    """Fitted on the fit's tokens; needs the task's input activations, one row a token.

    Raises FactorizationError without them, or where their rows are not those of the activations.
    """
    inputs = task.input_activations
    n_tokens = task.activations.shape[0]
    if inputs is None or inputs.shape[0] != n_tokens:
        found = "none" if inputs is None else f"{inputs.shape[0]} rows"
        raise FactorizationError(
            f"a transcoder needs the MLP's input (site kind mlp_in) of each of the {n_tokens} "
            f"tokens; found {found}: add mlp_in to the model's kinds and materialize that site"
        )
    training = train_topk(
        inputs[task.is_fit],
        task.activations[task.is_fit],
        settings_of(task, is_tied=False),
        task.on_iteration,
    )
    return topk_factors(task, training, inputs)
