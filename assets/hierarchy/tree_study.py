"""A dictionary's whole tree: the recursion, its fine-tuning on the activations, and its nulls.

What each step does is recursive.py, fine_tuning.py and tree_frames.py; this file only puts them
together. The fit's own dictionary is not changed: fine-tuning moves edges and parents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from assets.factorization.inputs import as_matrix, mean_row_norm, neuron_rows
from assets.factorization.null_controls import permuted_rows
from assets.factorization.sparse_rows import support_size
from assets.hierarchy.config import HierarchyConfig
from assets.hierarchy.fine_tuning import (
    FineTuning,
    ProgressCallback,
    Tree,
    fine_tune,
    fit_coefficients,
)
from assets.hierarchy.recursive import HierarchyLevel, recursive_snmf
from assets.hierarchy.tables import HIERARCHY_LEVELS
from assets.hierarchy.tree_frames import levels_frame
from assets.shared.plots import line_plot

_SHOWN = (
    "level",
    "permutation",
    "n_children",
    "n_parents",
    "children_explained_variance",
    "children_explained_variance_tuned",
    "explained_variance",
    "explained_variance_tuned",
    "n_tokens_used",
    "n_tokens",
    "edge_concentration",
)


@dataclass(frozen=True)
class TreeStudy:
    """The levels as the recursion left them, the fine-tuning (None: off), `hierarchy_levels`."""

    levels: list[HierarchyLevel]
    tuning: FineTuning | None
    rows: pl.DataFrame

    def as_markdown(self) -> str:
        """The rows as a Markdown table, their main columns."""
        lines = ["| " + " | ".join(_SHOWN) + " |", "|---" * len(_SHOWN) + "|"]
        for row in self.rows.select(_SHOWN).iter_rows():
            lines.append("| " + " | ".join(map(_cell, row)) + " |")
        return "\n".join(lines)

    def shown(self) -> dict[str, str]:
        """Markdown by name: the rows, and how the objective of the fine-tuning fell."""
        shown = {"levels": self.as_markdown()}
        if self.tuning is not None:
            shown["objective_by_iteration"] = line_plot(
                self.tuning.objective_trace,
                "Objective of the fine-tuning",
                "iteration",
                "½‖A/c − YZ‖² + λ ΣY",
            )
        return shown


def _cell(value: float | int | None) -> str:
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def study_tree(
    dictionary: Float[Tensor, "k d"],
    load_activations: Callable[[], Float[Tensor, "n_tokens_used d"]],
    config: HierarchyConfig,
    *,
    penalty: float,
    n_tokens: int | None = None,
    offset: Sequence[float] | None = None,
    on_iteration: ProgressCallback | None = None,
) -> TreeStudy:
    """The tree of a dictionary, and its rows of `hierarchy_levels`.

    `load_activations` gives the site's, massive tokens left out, or a sample of them
    (token_sample.py), and is called only where there are levels; `n_tokens` is how many there are
    in all (None: those given). `penalty` is the fit's, `offset` what it adds to YZ.
    Raises ValueError if the first rank is not below the number of features.
    """
    levels = recursive_snmf(dictionary, config)
    frames = [HIERARCHY_LEVELS.empty().drop(HIERARCHY_LEVELS.partition_by)]
    tuning = None
    if levels:
        matrix = as_matrix(load_activations())
        n_used = len(matrix)
        if offset is not None:
            matrix = matrix - torch.tensor(offset, dtype=matrix.dtype)
        neurons = neuron_rows(matrix, mean_row_norm(matrix))
        del matrix
        trees = [
            Tree(tuple(one.weights for one in levels[: level.level + 1]), level.dictionary)
            for level in levels
        ]
        explained = [fit_coefficients(neurons, tree, penalty).explained_variance for tree in trees]
        if config.fine_tune:
            tuning = fine_tune(
                neurons,
                dictionary.to(neurons),
                trees[-1],
                support_size(levels[-1].keep_fraction, dictionary.shape[1]),
                penalty,
                anchor=config.fine_tune_anchor,
                max_iter=config.fine_tune_max_iter,
                tol=config.fine_tune_tol,
                on_iteration=on_iteration,
            )
        frames.append(
            levels_frame(
                dictionary,
                levels,
                config.edge_threshold,
                seed=config.seed,
                explained_variances=explained,
                n_tokens_used=n_used,
                n_tokens=n_used if n_tokens is None else n_tokens,
                tuning=tuning,
            )
        )
        frames += [
            _null_rows(dictionary, config, permutation)
            for permutation in range(1, config.n_permutations + 1)
        ]
    return TreeStudy(levels, tuning, pl.concat(frames))


def _null_rows(
    dictionary: Float[Tensor, "k d"], config: HierarchyConfig, permutation: int
) -> pl.DataFrame:
    seed = config.seed + permutation
    permuted = permuted_rows(dictionary, torch.Generator().manual_seed(seed))
    return levels_frame(
        permuted,
        recursive_snmf(permuted, config),
        config.edge_threshold,
        permutation=permutation,
        seed=seed,
        why_untuned="a permuted dictionary is no factor of the activations",
    )
