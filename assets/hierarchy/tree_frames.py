"""The tree as rows: edges, parents, and what each level explains beside its permuted nulls.

Stored weights are scaled so that the child which they make of the parents has unit norm, as the
parents have: the scale of a fine-tuned tree lies in its coefficients, that of the recursion in the
edges, and neither says anything of the edges. How the tree is found is recursive.py and
fine_tuning.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from assets.factorization.sparse_rows import unit_rows
from assets.hierarchy.fine_tuning import FineTuning, Tree
from assets.hierarchy.recursive import HierarchyLevel
from assets.hierarchy.tables import FEATURE_EDGES, HIERARCHY_LEVELS, PARENT_FEATURES


@dataclass(frozen=True)
class StoredLevel:
    """A level as the lake has it: unit parents, and the weights before and after fine-tuning."""

    level: int
    weights: Float[Tensor, "n_children n_parents"]
    weights_before: Float[Tensor, "n_children n_parents"]
    parents: Float[Tensor, "n_parents d"]


def stored_levels(levels: Sequence[HierarchyLevel], tuned: Tree | None) -> list[StoredLevel]:
    """The levels as stored; `tuned` is the fine-tuned tree, None where there is none.

    A fine-tuned parent without edges upwards is made of nothing: its row is zero.
    """
    stored = []
    for level in levels:
        before = unit_child_weights(level.weights, level.dictionary)
        if tuned is None:
            stored.append(StoredLevel(level.level, before, before, level.dictionary))
            continue
        implied = tuned.rows_of_level(level.level + 1)
        parents = unit_rows(implied)
        lengths = torch.linalg.vector_norm(implied, dim=1)
        weights = unit_child_weights(tuned.edges[level.level] * lengths, parents)
        stored.append(StoredLevel(level.level, weights, before, parents))
    return stored


def unit_child_weights(
    weights: Float[Tensor, "n_children n_parents"], parents: Float[Tensor, "n_parents d"]
) -> Float[Tensor, "n_children n_parents"]:
    """Rows scaled so that weights @ parents has unit rows; rows that make nothing become zero."""
    lengths = torch.linalg.vector_norm(weights @ parents, dim=1, keepdim=True)
    return torch.where(lengths > 0, weights / lengths.clamp_min(1e-30), 0.0)


def edges_frame(
    stored: Sequence[StoredLevel], edge_threshold: float, feature_ids: Sequence[int]
) -> pl.DataFrame:
    """Rows of `feature_edges`: the edges of each child from the threshold on.

    `edge_threshold` is a share of the child's strongest edge; a child without any has no row.
    `feature_ids` name the children of level 0.
    """
    frames = [FEATURE_EDGES.empty().drop(FEATURE_EDGES.partition_by)]
    for level in stored:
        children, parents = _edges(level.weights, edge_threshold)
        names = np.asarray(feature_ids) if level.level == 0 else np.arange(len(level.weights))
        frames.append(
            pl.DataFrame(
                {
                    "level": np.full(len(children), level.level),
                    "child_id": names[children],
                    "parent_id": parents,
                    "weight": _values(level.weights)[children, parents],
                    "weight_before": _values(level.weights_before)[children, parents],
                },
                schema_overrides=dict(frames[0].schema),
            )
        )
    return pl.concat(frames)


def parents_frame(stored: Sequence[StoredLevel]) -> pl.DataFrame:
    """Rows of `parent_features`: one a non-zero weight of a parent on a neuron."""
    frames = [PARENT_FEATURES.empty().drop(PARENT_FEATURES.partition_by)]
    for level in stored:
        rows = _values(level.parents)
        parents, neurons = np.nonzero(rows)
        frames.append(
            pl.DataFrame(
                {
                    "level": np.full(len(parents), level.level),
                    "parent_id": parents,
                    "neuron": neurons,
                    "weight": rows[parents, neurons],
                },
                schema_overrides=dict(frames[0].schema),
            )
        )
    return pl.concat(frames)


def levels_frame(
    dictionary: Float[Tensor, "k d"],
    levels: Sequence[HierarchyLevel],
    edge_threshold: float,
    *,
    permutation: int = 0,
    seed: int,
    explained_variances: Sequence[float] | None = None,
    n_tokens_used: int | None = None,
    n_tokens: int | None = None,
    tuning: FineTuning | None = None,
    why_untuned: str = "fine_tune is off",
) -> pl.DataFrame:
    """Rows of `hierarchy_levels` of one recursion of `dictionary`.

    `permutation` 0 is the fit's own dictionary; `explained_variances` are the activations', one a
    level, None where they are not computed, over `n_tokens_used` of `n_tokens` tokens.
    """
    stored = stored_levels(levels, None if tuning is None else tuning.after.tree)
    children, tuned_children = dictionary, dictionary
    rows = []
    for place, (level, kept) in enumerate(zip(levels, stored, strict=True)):
        tuned_share = None
        if tuning is not None:
            tuned_share = children_explained(tuned_children, kept.weights, kept.parents)
        of_activations = None if explained_variances is None else explained_variances[place]
        rows.append(
            {
                "level": level.level,
                "permutation": permutation,
                "is_null": permutation > 0,
                "n_children": len(level.weights),
                "n_parents": len(level.dictionary),
                "keep_fraction": level.keep_fraction,
                "children_explained_variance": children_explained(
                    children, level.weights, level.dictionary
                ),
                "children_explained_variance_tuned": tuned_share,
                "explained_variance": of_activations,
                "explained_variance_tuned": tuning and tuning.after.explained_variance,
                "n_tokens_used": n_tokens_used,
                "n_tokens": n_tokens,
                "edge_concentration": edge_concentration(kept.weights_before),
                "edges_per_child": len(_edges(kept.weights_before, edge_threshold)[0])
                / len(level.weights),
                "n_iter": level.n_iter,
                "is_converged": level.is_converged,
                "stop_reason": level.stop_reason,
                "seed": seed,
                "tuning_objective_before": tuning and tuning.before.objective,
                "tuning_objective_after": tuning and tuning.after.objective,
                "tuning_n_iter": tuning and tuning.n_iter,
                "tuning_is_converged": tuning and tuning.is_converged,
                "tuning_stop_reason": why_untuned if tuning is None else tuning.stop_reason,
            }
        )
        children, tuned_children = level.dictionary, kept.parents
    schema = HIERARCHY_LEVELS.empty().drop(HIERARCHY_LEVELS.partition_by).schema
    return pl.DataFrame(rows, schema=schema)


def children_explained(
    children: Float[Tensor, "n_children d"],
    weights: Float[Tensor, "n_children n_parents"],
    parents: Float[Tensor, "n_parents d"],
) -> float | None:
    """Mean squared cosine of children with what their parents make of them; scale does not count.

    A child that points away from it is explained by nothing of it (0); children of zeros are left
    out, and without others there is no mean.
    """
    live = torch.linalg.vector_norm(children, dim=1) > 0
    if not live.any():
        return None
    cosines = (unit_rows(children) * unit_rows(weights @ parents)).sum(dim=1)[live]
    return float(cosines.clamp_min(0).square().mean(dtype=torch.float64))


def edge_concentration(weights: Float[Tensor, "n_children n_parents"]) -> float | None:
    """Mean of strongest edge / sum of edges over the children with edges: 1 for a clean tree."""
    totals = weights.sum(dim=1)
    has_edges = totals > 0
    if not has_edges.any():
        return None
    return float((weights.amax(dim=1) / totals)[has_edges].mean(dtype=torch.float64))


def _edges(
    weights: Float[Tensor, "n_children n_parents"], edge_threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    values = _values(weights)
    strongest = values.max(axis=1, keepdims=True)
    children, parents = np.nonzero((values > 0) & (values >= edge_threshold * strongest))
    return children, parents


def _values(matrix: Tensor) -> np.ndarray:
    return matrix.detach().float().cpu().numpy()
