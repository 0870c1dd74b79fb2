"""Joint fine-tuning of a tree of factors on the activations; non-negative and sparse throughout.

    minimise  ½‖A/c − Y W₀ W₁ … Z‖² + λ ΣY + ½ρ ‖X − W₀ W₁ … Z‖²
    subject to  Y ≥ 0;  W_l ≥ 0 with the zeros it came with, rows of norm ≤ 1;
                rows of Z of unit norm with ≤ s non-zeros

A are the activations [n, d], c their mean row norm, Y the coefficients [n, k], W_l the edges from
level l to level l + 1, Z the topmost dictionary, X the fit's own dictionary, which stays. The
dictionaries between are implied: the one of level l is W_l W_{l+1} … Z. All scale lives in Y, as in
SNMF, so that λ cannot be evaded by moving scale into the edges. Shafran, Geiger and Geva (2025),
section 5, whose joint tuning keeps neither constraint and has no last term.

The last term, the anchor, keeps the lowest rows the features that the catalogue names: without it
the activations alone say what row j is, and planted trees lost groups that the recursion had found.
ρ is `anchor` times the mean of ‖y_j‖² before tuning, so it weighs as much as that share of the data
does. It enters as k more rows of A, whose coefficients are fixed: √ρ X and √ρ I.

Every step lowers the objective or leaves it: Y by exact sweeps (coefficient_solver.py); W_l by
projected gradient under a bound of the curvature; each row of Z by its exact minimizer, the
s largest magnitudes of what is left for it. Only Yᵀ A and A Zᵀ touch the activations. How the tree
is found first is recursive.py; what is stored of it is tree_frames.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from assets.factorization.coefficient_solver import solve_coefficients, sweep_coefficients
from assets.factorization.coordinate_solver import explained_share, penalized_objective
from assets.factorization.sparse_rows import dictionary_products, keep_largest, unit_rows

# Gradient steps on each level's edges an iteration: small matrices, far cheaper than Y's sweep.
EDGE_STEPS = 5
MAX_SWEEPS = 100

ProgressCallback = Callable[[int, float], None]


@dataclass(frozen=True)
class Tree:
    """Edges of each level, lowest first, and the topmost dictionary."""

    edges: tuple[Float[Tensor, "n_children n_parents"], ...]
    top: Float[Tensor, "n_tops d"]

    def rows_of_level(self, level: int) -> Float[Tensor, "n d"]:
        """The implied dictionary of a level: W_level … Z; the topmost one for the last level."""
        return reduce(lambda rows, edges: edges @ rows, reversed(self.edges[level:]), self.top)


@dataclass(frozen=True)
class TreeFit:
    """A tree, the activations' coefficients under it, and how well both explain them."""

    tree: Tree
    coefficients: Float[Tensor, "k n_tokens"]
    objective: float
    explained_variance: float


@dataclass(frozen=True)
class FineTuning:
    """The tree as it came and as it went; the trace holds the objective after each iteration."""

    before: TreeFit
    after: TreeFit
    objective_trace: list[float]
    n_iter: int
    is_converged: bool
    stop_reason: str


def balanced_tree(edges: Sequence[Tensor], top: Float[Tensor, "n_tops d"]) -> Tree:
    """The tree with edge rows of unit norm (or zero), every implied row's direction as before.

    The scale of a row goes to the edges that lead to it, from the top down, and out of the lowest.
    """
    scaled = list(edges)
    for level in range(len(scaled) - 1, -1, -1):
        norms = torch.linalg.vector_norm(scaled[level], dim=1)
        scaled[level] = unit_rows(scaled[level])
        if level:
            scaled[level - 1] = scaled[level - 1] * norms
    return Tree(tuple(scaled), top)


def fit_coefficients(
    neurons: Float[Tensor, "d n_tokens"],
    tree: Tree,
    penalty: float,
    start: Float[Tensor, "k n_tokens"] | None = None,
) -> TreeFit:
    """The activations' coefficients under a fixed tree, solved; no anchor in the objective."""
    rows = tree.rows_of_level(0)
    solved = solve_coefficients(
        neurons, rows, rows.shape[1], penalty, start=start, max_sweeps=MAX_SWEEPS, tol=1e-4
    ).coefficients
    squared_norm = _squared_norm(neurons)
    total = float(solved.sum(dtype=torch.float64))
    objective = penalized_objective(
        rows, solved @ neurons.t(), solved @ solved.t(), total, squared_norm, penalty
    )
    explained = explained_share(objective - penalty * total, squared_norm)
    return TreeFit(tree, solved, objective, explained)


def fine_tune(
    neurons: Float[Tensor, "d n_tokens"],
    features: Float[Tensor, "k d"],
    tree: Tree,
    size: int,
    penalty: float,
    *,
    anchor: float,
    max_iter: int,
    tol: float,
    on_iteration: ProgressCallback | None = None,
) -> FineTuning:
    """Tune a tree on the activations from where it is.

    `neurons` is (A/c)ᵀ with contiguous rows, `features` X, `size` the most non-zeros of a row of
    Z. The state before is the tree as given with its coefficients solved, so that what is gained
    is the dictionaries' gain. Ends when an iteration lowers the objective by less than `tol` of it.
    Raises ValueError when the tree's shapes do not chain or fit `neurons`.
    """
    _check_tree(tree, neurons, features)
    tree = Tree(balanced_tree(tree.edges, tree.top).edges, unit_rows(keep_largest(tree.top, size)))
    before = fit_coefficients(neurons, tree, penalty)
    coefficients = before.coefficients.clone()
    weight = anchor * float(coefficients.square().sum(dtype=torch.float64)) / len(coefficients)
    squared_norm = _squared_norm(neurons) + weight * _squared_norm(features)
    before = _anchored(before, features, weight)
    trace: list[float] = []
    is_converged = False
    for iteration in range(max_iter):
        products = _chained(tree.edges) @ dictionary_products(tree.top, neurons, size)
        rows = tree.rows_of_level(0)
        sweep_coefficients(coefficients, products, rows @ rows.t(), penalty)
        token_products = coefficients @ neurons.t() + weight * features
        coefficient_gram = coefficients @ coefficients.t()
        coefficient_gram.diagonal().add_(weight)
        tree = step_dictionaries(tree, token_products, coefficient_gram, size)
        total = float(coefficients.sum(dtype=torch.float64))
        rows = tree.rows_of_level(0)
        trace.append(
            penalized_objective(
                rows, token_products, coefficient_gram, total, squared_norm, penalty
            )
        )
        if on_iteration is not None:
            on_iteration(iteration, trace[-1])
        last = trace[-2] if len(trace) > 1 else before.objective
        # The floor keeps an exact fit (objective at rounding level) from running on.
        if last - trace[-1] < tol * max(trace[-1], 1e-7 * squared_norm):
            is_converged = True
            break
    reason = (
        f"the objective fell by less than {tol:g} of its value in an iteration"
        if is_converged
        else f"max_iter = {max_iter} iterations reached"
    )
    after = _anchored(fit_coefficients(neurons, tree, penalty, coefficients), features, weight)
    return FineTuning(before, after, trace, len(trace), is_converged, reason)


def step_dictionaries(
    tree: Tree,
    token_products: Float[Tensor, "k d"],
    coefficient_gram: Float[Tensor, "k k"],
    size: int,
) -> Tree:
    """One round over all edges and the topmost dictionary, from Yᵀ A and Yᵀ Y."""
    edges = list(tree.edges)
    for level in range(len(edges)):
        above = Tree(tuple(edges), tree.top).rows_of_level(level + 1)
        edges[level] = step_edges(
            edges[level], coefficient_gram, token_products @ above.t(), above @ above.t()
        )
        # What lies below is done for this round: seen from the next level it is one factor.
        token_products = edges[level].t() @ token_products
        coefficient_gram = edges[level].t() @ coefficient_gram @ edges[level]
    return Tree(tuple(edges), step_top(tree.top, token_products, coefficient_gram, size))


def step_edges(
    edges: Float[Tensor, "n_children n_parents"],
    below: Float[Tensor, "n_children n_children"],
    target: Float[Tensor, "n_children n_parents"],
    above: Float[Tensor, "n_parents n_parents"],
) -> Float[Tensor, "n_children n_parents"]:
    """Projected gradient steps on ½ tr(Wᵀ H W M) − ⟨W, T⟩ over rows ≥ 0 of norm ≤ 1.

    `below` is H = PᵀP, `above` M = R Rᵀ and `target` T = PᵀA Rᵀ for A ≈ P W R. H has no negative
    entry, so diag(H 1) bounds it from above and each row takes a step of its own length; a zero
    stays zero. On a cone cut by a ball, clamping and then shrinking is the exact projection.
    """
    can_grow = edges > 0
    largest = torch.linalg.matrix_norm(above, ord=2)
    curvature = (below.abs().sum(dim=1) * largest)[:, None]
    # A row of no curvature explains nothing now and stays.
    length = torch.where(curvature > 0, 1 / curvature.clamp_min(1e-30), 0.0)
    for _ in range(EDGE_STEPS):
        moved = edges - length * (below @ edges @ above - target)
        moved = torch.where(can_grow, moved.clamp_min(0), 0.0)
        norms = torch.linalg.vector_norm(moved, dim=1, keepdim=True)
        edges = moved / norms.clamp_min(1.0)
    return edges


def step_top(
    top: Float[Tensor, "n_tops d"],
    token_products: Float[Tensor, "n_tops d"],
    coefficient_gram: Float[Tensor, "n_tops n_tops"],
    size: int,
) -> Float[Tensor, "n_tops d"]:
    """Each row in turn by its exact minimizer among unit rows with at most `size` non-zeros.

    With the scale fixed and ‖z‖ = 1 the objective of a row is linear in it, so the minimizer is
    the direction of the largest magnitudes of what the other rows leave. A row that nothing uses,
    or that is left nothing, stays.
    """
    top = top.clone()
    for row in range(len(top)):
        energy = coefficient_gram[row, row]
        left = token_products[row] - coefficient_gram[row] @ top + energy * top[row]
        kept = keep_largest(left[None], size)
        if energy > 0 and bool((kept != 0).any()):
            top[row] = unit_rows(kept)[0]
    return top


def _anchored(fit: TreeFit, features: Float[Tensor, "k d"], weight: float) -> TreeFit:
    distance = _squared_norm(features - fit.tree.rows_of_level(0))
    return replace(fit, objective=fit.objective + 0.5 * weight * distance)


def _chained(edges: Sequence[Tensor]) -> Tensor:
    return reduce(torch.matmul, edges)


def _squared_norm(matrix: Tensor) -> float:
    return float(torch.linalg.vector_norm(matrix, dim=0).square().sum(dtype=torch.float64))


def _check_tree(tree: Tree, neurons: Tensor, features: Tensor) -> None:
    sizes = [tuple(edges.shape) for edges in tree.edges] + [tuple(tree.top.shape)]
    chains = all(left[1] == right[0] for left, right in pairwise(sizes))
    ends = (sizes[0][0], sizes[-1][1])
    if not tree.edges or not chains or not ends == tuple(features.shape) == (ends[0], len(neurons)):
        raise ValueError(
            f"found factors of shapes {sizes} for features {tuple(features.shape)} and "
            f"{len(neurons)} neurons; expected at least one level of edges, each with as many "
            "columns as the next has rows, from the features to the neurons"
        )
