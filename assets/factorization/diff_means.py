"""DiffMeans: one direction a concept, from labels (a supervised comparator).

    z_c = unit( mean of the concept's tokens - mean of all other tokens ),   y = max(0, A z_c)

As in Marks and Tegmark (2023), "The Geometry of Truth", and the DiffMean baseline of AxBench (Wu et
al. 2025). The directions are dense and do not reconstruct A, so explained variance may be negative.
"""

from __future__ import annotations

import torch

from assets.factorization.factorization import Factors, FitTask
from assets.factorization.inputs import FactorizationError


def fit_diff_means(task: FitTask) -> Factors:
    """One feature for each concept among the fit's tokens, in alphabetical order.

    A token of no concept belongs to the rest of every concept. Raises FactorizationError when no
    token has a concept, a concept holds all tokens, or its mean equals the mean of the rest.
    """
    n_tokens = task.activations.shape[0]
    if task.concepts is None or len(task.concepts) != n_tokens:
        found = "none" if task.concepts is None else str(len(task.concepts))
        raise FactorizationError(
            f"diff_means needs the concept of each of the {n_tokens} tokens; found {found}: use a "
            "labelled corpus or leave diff_means out of the study"
        )
    is_fit = task.is_fit.cpu().tolist()
    names = sorted({c for c, used in zip(task.concepts, is_fit, strict=True) if used and c})
    if not names:
        raise FactorizationError(
            "diff_means needs labelled documents; no token of the fit has a concept: use a "
            "labelled corpus or leave diff_means out of the study"
        )
    number = {name: i for i, name in enumerate(names)}
    unlabelled = len(names)
    group = torch.tensor(
        [number.get(concept, unlabelled) if concept else unlabelled for concept in task.concepts],
        device=task.activations.device,
    )[task.is_fit]
    activations = task.activations[task.is_fit].double()
    sums = activations.new_zeros(unlabelled + 1, activations.shape[1])
    sums.index_add_(0, group, activations)
    counts = torch.bincount(group, minlength=unlabelled + 1).double()
    inside, total = counts[:unlabelled, None], counts.sum()
    if (inside == total).any():
        raise FactorizationError(
            f"concept {names[0]!r} holds all {int(total)} tokens of the fit; diff_means needs "
            "tokens outside of it"
        )
    everything = sums.sum(dim=0)
    direction = sums[:-1] / inside - (everything - sums[:-1]) / (total - inside)
    lengths = torch.linalg.vector_norm(direction, dim=1)
    smallest = 1e-9 * torch.linalg.vector_norm(activations, dim=1).mean()
    if (lengths <= smallest).any():
        name = names[int((lengths <= smallest).nonzero()[0])]
        raise FactorizationError(
            f"concept {name!r} has the same mean activation as the rest; it has no direction"
        )
    dictionary = (direction / lengths[:, None]).to(task.activations.dtype)
    return Factors(
        dictionary=dictionary,
        coefficients=(task.activations @ dictionary.t()).clamp_(min=0),
        n_iter=0,
        is_converged=True,
        stop_reason="closed form",
        objective_trace=[],
        feature_names=list(names),
    )
