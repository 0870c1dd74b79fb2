"""Recursive SNMF: the dictionary is factored by a smaller one, and that one again.

    Z ≈ Y₁ Z₁,   Z₁ ≈ Y₂ Z₂,   …     Y_l >= 0, rows of Z_l sparse and of unit norm

The coefficients are edges, from a child (row of Z_l) to parents (rows of Z_{l+1}). Shafran, Geiger
and Geva (2025), section 5, who factor 400 → 200 → 100 → 50. Fine-tuning all levels jointly on the
activations is fine_tuning.py, their rows in the lake are tree_frames.py.

Sparsity: a parent stands for several children and must reach the neurons of all of them. One with
k_child / k_parent children, of s neurons each, needs at most s · k_child / k_parent, the size of
the union of disjoint supports; that is what a parent may use.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from assets.factorization.semi_nmf import SemiNMF
from assets.hierarchy.config import HierarchyConfig


@dataclass(frozen=True)
class HierarchyLevel:
    """One factorization of a level: child rows ≈ weights @ dictionary, and how its fit ended."""

    level: int
    weights: Float[Tensor, "n_children n_parents"]
    dictionary: Float[Tensor, "n_parents d"]
    keep_fraction: float
    explained_variance: float | None
    n_iter: int
    is_converged: bool
    stop_reason: str


def recursive_snmf(
    dictionary: Float[Tensor, "k d"], config: HierarchyConfig
) -> list[HierarchyLevel]:
    """Factor a dictionary by each rank of the config in turn; level 0 holds the features' edges.

    No levels when there are fewer than 4 features and the ranks are automatic. Raises ValueError if
    the first rank is not below the number of features.
    """
    children = dictionary
    levels = []
    for level, rank in enumerate(config.ranks_for(dictionary.shape[0])):
        levels.append(_best_level(children, level, rank, config))
        children = levels[-1].dictionary
    return levels


def _best_level(
    children: Float[Tensor, "n_children d"], level: int, rank: int, config: HierarchyConfig
) -> HierarchyLevel:
    """The fit of lowest objective of n_starts: with few rows, local optima are common."""
    keep_fraction = parent_keep_fraction(children, rank)
    best: SemiNMF | None = None
    for start in range(config.n_starts):
        model = SemiNMF(
            n_components=rank,
            keep_fraction=keep_fraction,
            coefficient_penalty=config.coefficient_penalty,
            # Dictionary rows are few and of one length: the plain L1 norm on neurons as they are
            # found planted groups best.
            penalty_concavity=0.0,
            column_scaling=0.0,
            row_scaling=0.0,
            tol=1e-4,
            max_iter=config.max_iter,
            random_state=config.seed + start,
        ).fit(children)
        if best is None or model.objective_trace_[-1] < best.objective_trace_[-1]:
            best = model
    if best is None:
        raise ValueError(f"hierarchy.n_starts {config.n_starts} found; expected at least 1")
    return HierarchyLevel(
        level=level,
        weights=torch.as_tensor(best.transform(children)),
        dictionary=torch.as_tensor(best.components_),
        keep_fraction=keep_fraction,
        explained_variance=best.explained_variance_,
        n_iter=best.n_iter_,
        is_converged=best.is_converged_,
        stop_reason=best.stop_reason_,
    )


def parent_keep_fraction(children: Float[Tensor, "k d"], n_parents: int) -> float:
    """Share of neurons a parent may use: the union of its children's, were they all disjoint."""
    largest_support = int((children != 0).sum(dim=1).max())
    neurons = largest_support * children.shape[0] / n_parents
    return min(1.0, max(1.0, neurons) / children.shape[1])
