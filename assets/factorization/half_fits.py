"""SNMF fits on two disjoint halves of the documents, and what each explains of the other.

The choice of a rank by them is in rank_choice.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from assets.factorization.config import FitConfig
from assets.factorization.metrics import explained_variance
from assets.factorization.snmf_method import snmf_estimator


@dataclass(frozen=True)
class HalfFits:
    """The two fits of one halving; energies are sums of squared coefficients of each feature."""

    dictionaries: tuple[Tensor, Tensor]
    energies: tuple[Tensor, Tensor]
    held_out: tuple[float | None, float | None]


def halved_documents(
    group_of_token: Int[np.ndarray, " n_tokens"], seed: int
) -> Bool[np.ndarray, " n_tokens"]:
    """For each token whether it is in the first half; whole documents, halved by their number."""
    groups, index = np.unique(group_of_token, return_inverse=True)
    in_first = np.zeros(len(groups), dtype=bool)
    order = np.random.default_rng(seed).permutation(len(groups))
    in_first[order[: len(groups) // 2]] = True
    return in_first[index]


def fit_halves(
    matrix: Float[Tensor, "n_tokens d"],
    in_first: Bool[np.ndarray, " n_tokens"],
    fit: FitConfig,
    rank: int,
    seed: int,
) -> HalfFits:
    """Fit each half at a rank, with the seeds `seed` and `seed + 1`.

    Raises FactorizationError where a half admits no fit (fewer tokens than the rank).
    """
    mask = torch.from_numpy(in_first).to(matrix.device)
    halves = matrix[mask], matrix[~mask]
    models = [snmf_estimator(fit, rank, seed + i) for i in range(2)]
    energies = [
        torch.as_tensor(model.fit_transform(half)).square().sum(dim=0)
        for model, half in zip(models, halves, strict=True)
    ]
    first, second = (torch.as_tensor(model.components_) for model in models)
    held_out = tuple(
        explained_variance(
            other, torch.as_tensor(model.transform(other)), torch.as_tensor(model.components_)
        ).uncentred
        for model, other in zip(models, reversed(halves), strict=True)
    )
    return HalfFits((first, second), (energies[0], energies[1]), (held_out[0], held_out[1]))


def distinct_rows(
    dictionary: Float[Tensor, "k d"], energies: Float[Tensor, " k"], threshold: float
) -> Float[Tensor, "n_distinct d"]:
    """The rows, strongest first, without those whose cosine with a stronger one kept reaches it.

    Rows of features that never fire are left out.
    """
    order = energies.argsort(descending=True, stable=True)
    rows = torch.nn.functional.normalize(dictionary[order[energies[order] > 0]].double(), dim=1)
    is_near = (rows @ rows.t() >= threshold).tril(-1)
    kept = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    for i in range(len(rows)):
        kept[i] = not (is_near[i] & kept).any()
    return rows[kept]
