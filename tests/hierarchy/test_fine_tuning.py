"""Joint fine-tuning: the objective never rises, constraints hold, planted trees survive noise."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from assets.factorization.inputs import mean_row_norm, neuron_rows
from assets.factorization.sparse_rows import keep_largest, unit_rows
from assets.hierarchy.config import HierarchyConfig
from assets.hierarchy.fine_tuning import (
    Tree,
    balanced_tree,
    fine_tune,
    step_dictionaries,
    step_edges,
    step_top,
)
from assets.hierarchy.recursive import recursive_snmf
from tests.hierarchy.planted_trees import (
    N_GRANDPARENTS,
    N_PARENTS,
    activations_of,
    noisy_rows,
    planted_tree,
)

SIZE, PENALTY, ANCHOR = 12, 0.02, 0.3


def random_problem(seed, dtype=torch.float64):
    """Activations of rank 12, and a tree 12 → 6 → 3 that knows nothing of them."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(shape, generator=generator).to(dtype)

    rows = torch.randn(12, 40, generator=generator).to(dtype)
    matrix = (rand(150, 12) * (rand(150, 12) < 0.3)) @ rows + 0.1 * torch.randn(
        150, 40, generator=generator
    ).to(dtype)
    edges = (rand(12, 6) * (rand(12, 6) < 0.5), rand(6, 3) * (rand(6, 3) < 0.7))
    top = torch.randn(3, 40, generator=generator).to(dtype)
    return neuron_rows(matrix, mean_row_norm(matrix)), unit_rows(rows), Tree(edges, top)


def brute_objective(neurons, tree, coefficients):
    product = coefficients.t()
    for edges in tree.edges:
        product = product @ edges
    error = neurons.t() - product @ tree.top
    return float(0.5 * error.square().sum() + PENALTY * coefficients.sum())


@pytest.mark.parametrize("anchor", [0.0, 0.3, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_objective_never_rises_and_is_that_of_the_factors(seed, anchor):
    neurons, features, tree = random_problem(seed)
    tuned = fine_tune(neurons, features, tree, SIZE, PENALTY, anchor=anchor, max_iter=40, tol=0.0)
    trace = [tuned.before.objective, *tuned.objective_trace, tuned.after.objective]
    falls = [late - early for early, late in pairwise(trace)]
    assert max(falls) <= 1e-10 * trace[0]
    assert trace[-1] < 0.9 * trace[0]
    for state in (tuned.before, tuned.after):
        expected = brute_objective(neurons, state.tree, state.coefficients)
        weight = anchor * float(tuned.before.coefficients.square().sum(dim=1).mean())
        distance = features - state.tree.edges[0] @ state.tree.edges[1] @ state.tree.top
        expected += 0.5 * weight * float(distance.square().sum())
        assert state.objective == pytest.approx(expected, rel=1e-9)
    assert tuned.after.explained_variance > tuned.before.explained_variance


def test_each_kind_of_step_lowers_the_objective_by_itself():
    neurons, _, tree = random_problem(7)
    tree = Tree(balanced_tree(tree.edges, tree.top).edges, unit_rows(tree.top))
    coefficients = torch.rand(12, 150, generator=torch.Generator().manual_seed(1)).double()
    products, gram = coefficients @ neurons.t(), coefficients @ coefficients.t()
    now = brute_objective(neurons, tree, coefficients)
    for level in (0, 1):
        above = tree.rows_of_level(level + 1)
        below = torch.eye(12).double() if level == 0 else tree.edges[0]
        edges = list(tree.edges)
        edges[level] = step_edges(
            edges[level],
            below.t() @ gram @ below,
            below.t() @ products @ above.t(),
            above @ above.t(),
        )
        tree = Tree(tuple(edges), tree.top)
        then, now = now, brute_objective(neurons, tree, coefficients)
        assert now < then
    chained = tree.edges[0] @ tree.edges[1]
    top = step_top(tree.top, chained.t() @ products, chained.t() @ gram @ chained, SIZE)
    assert brute_objective(neurons, Tree(tree.edges, top), coefficients) < now


def test_a_top_row_is_the_best_of_all_sparse_unit_rows():
    """Against every support: with one row and s = 2 of 5 neurons there are ten."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(1, 5, generator=generator).double()
    energy = torch.tensor([[2.0]]).double()
    found = step_top(torch.eye(5)[:1].double(), target, energy, 2)
    value = float((found * target).sum())
    for pair in torch.combinations(torch.arange(5)):
        best_of_pair = float(target[0, pair].norm())
        assert value >= best_of_pair - 1e-12
    assert value == pytest.approx(float(target.abs().topk(2).values.norm()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constraints_hold_after_every_step(dtype):
    neurons, features, tree = random_problem(3, dtype)
    given = tree
    tree = Tree(balanced_tree(tree.edges, tree.top).edges, unit_rows(keep_largest(tree.top, SIZE)))
    coefficients = torch.rand(12, 150, generator=torch.Generator().manual_seed(1)).to(dtype)
    for _ in range(15):
        tree = step_dictionaries(
            tree, coefficients @ neurons.t(), coefficients @ coefficients.t(), SIZE
        )
        for edges, before in zip(tree.edges, given.edges, strict=True):
            assert (edges >= 0).all()
            assert not ((edges > 0) & (before == 0)).any(), "a zero edge stays zero"
            assert (edges.norm(dim=1) <= 1 + 1e-6).all()
        assert ((tree.top != 0).sum(dim=1) <= SIZE).all()
        torch.testing.assert_close(tree.top.norm(dim=1), torch.ones(3, dtype=dtype))
    tuned = fine_tune(neurons, features, given, SIZE, PENALTY, anchor=ANCHOR, max_iter=5, tol=0.0)
    assert (tuned.after.coefficients >= 0).all()


def test_balancing_keeps_every_direction():
    _, _, tree = random_problem(5)
    balanced = balanced_tree(tree.edges, tree.top)
    for level in (0, 1, 2):
        torch.testing.assert_close(
            unit_rows(balanced.rows_of_level(level)), unit_rows(tree.rows_of_level(level))
        )
    for edges in balanced.edges:
        norms = edges.norm(dim=1)
        assert ((norms - 1).abs() < 1e-9).logical_or(norms == 0).all()


def tuned_noisy_tree(seed, noise, anchor):
    """A tree of a dictionary seen through noise, tuned on activations of the true one."""
    true, parent_of = planted_tree(seed)
    matrix = activations_of(true, noise=0.3, seed=seed)
    seen = noisy_rows(true, noise, seed)
    config = HierarchyConfig(ranks=(N_PARENTS, N_GRANDPARENTS), seed=seed, n_starts=4)
    (level, _) = recursive_snmf(seen, config)
    tuned = fine_tune(
        neuron_rows(matrix, mean_row_norm(matrix)),
        seen,
        Tree((level.weights,), level.dictionary),
        round(level.keep_fraction * true.shape[1]),
        0.03,
        anchor=anchor,
        max_iter=100,
        tol=1e-5,
    )
    return true, parent_of, tuned


def recovery(parent_of, tree):
    return adjusted_rand_score(parent_of, tree.edges[0].argmax(dim=1))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("noise", [0.3, 0.8])
def test_tuning_a_noisy_planted_tree_keeps_the_groups_and_nears_the_true_rows(seed, noise):
    true, parent_of, tuned = tuned_noisy_tree(seed, noise, ANCHOR)
    assert recovery(parent_of, tuned.before.tree) > 0.99
    assert recovery(parent_of, tuned.after.tree) > 0.99
    assert tuned.after.explained_variance > tuned.before.explained_variance

    def nearness(tree):
        cosines = unit_rows(true) * unit_rows(tree.rows_of_level(0))
        return float(cosines.sum(dim=1).mean())

    assert nearness(tuned.after.tree) > nearness(tuned.before.tree)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_anchor_keeps_the_lowest_rows_near_the_features(seed):
    def nearness(anchor):
        _, _, tuned = tuned_noisy_tree(seed, 0.8, anchor)
        seen = noisy_rows(planted_tree(seed)[0], 0.8, seed)
        cosines = seen * unit_rows(tuned.after.tree.rows_of_level(0))
        return float(cosines.sum(dim=1).mean())

    free, some, strong = (nearness(anchor) for anchor in (0.0, ANCHOR, 10.0))
    assert free < some < strong


def test_an_exact_tree_has_nothing_to_gain():
    _, _, tree = random_problem(2)
    tree = Tree(balanced_tree(tree.edges, tree.top).edges, unit_rows(tree.top))
    rows = tree.rows_of_level(0)
    coefficients = torch.rand(60, 12, generator=torch.Generator().manual_seed(4)).double()
    exact = coefficients @ rows
    neurons = neuron_rows(exact, mean_row_norm(exact))
    tuned = fine_tune(neurons, rows, tree, 40, 0.0, anchor=0.0, max_iter=20, tol=1e-4)
    assert tuned.is_converged and tuned.n_iter <= 2
    assert tuned.before.explained_variance == pytest.approx(1.0, abs=1e-3)
    assert tuned.after.explained_variance >= tuned.before.explained_variance - 1e-9


def test_stopping_says_why():
    neurons, features, tree = random_problem(0)
    short = fine_tune(neurons, features, tree, SIZE, PENALTY, anchor=ANCHOR, max_iter=2, tol=0.0)
    assert (short.n_iter, short.is_converged) == (2, False)
    assert "max_iter = 2" in short.stop_reason
    long = fine_tune(neurons, features, tree, SIZE, PENALTY, anchor=ANCHOR, max_iter=500, tol=1e-3)
    assert long.is_converged and "0.001" in long.stop_reason


def test_factors_that_do_not_chain_are_named():
    neurons, features, tree = random_problem(0)
    for edges, top in ((tree.edges[:1], tree.top), ((), tree.top), (tree.edges, tree.top.t())):
        with pytest.raises(ValueError, match="expected at least one level of edges"):
            fine_tune(
                neurons, features, Tree(edges, top), SIZE, PENALTY, anchor=0.0, max_iter=1, tol=0.0
            )
