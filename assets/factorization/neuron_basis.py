"""The neurons themselves in the common form: the axis basis, each axis with a sign.

    z = ± e_i,   y = max(0, ± a_i)

The (neuron, sign) pairs of largest energy Σ y² over the fit's tokens are kept, largest first. It is
what a factorization has to beat: one neuron, one feature.
"""

from __future__ import annotations

import torch

from assets.factorization.factorization import Factors, FitTask
from assets.factorization.inputs import FactorizationError


def fit_neurons(task: FitTask) -> Factors:
    """The `rank` strongest (neuron, sign) pairs; their names say which.

    Raises FactorizationError for a rank above two pairs a neuron.
    """
    width = task.activations.shape[1]
    if task.rank > 2 * width:
        raise FactorizationError(
            f"neurons of rank {task.rank} found; a site of {width} neurons has {2 * width} pairs "
            "of neuron and sign: lower the rank"
        )
    sample = task.activations[task.is_fit].double()
    energy = torch.cat(
        [sample.clamp(min=0).square().sum(dim=0), sample.clamp(max=0).square().sum(dim=0)]
    )
    pairs = energy.argsort(descending=True, stable=True)[: task.rank]
    neurons, is_negative = pairs % width, pairs >= width
    signs = torch.where(is_negative, -1.0, 1.0).to(task.activations)
    dictionary = task.activations.new_zeros(task.rank, width)
    dictionary[torch.arange(task.rank, device=pairs.device), neurons] = signs
    return Factors(
        dictionary=dictionary,
        coefficients=(task.activations[:, neurons] * signs).clamp_(min=0),
        n_iter=0,
        is_converged=True,
        stop_reason="closed form",
        objective_trace=[],
        feature_names=[
            f"neuron {neuron} {'-' if negative else '+'}"
            for neuron, negative in zip(neurons.tolist(), is_negative.tolist(), strict=True)
        ],
    )
