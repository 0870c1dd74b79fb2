"""The coordinate solver against independent, naive minimizers of each of its blocks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar, nnls

from assets.factorization.coefficient_solver import (
    FEATURE_BLOCK,
    penalty_value,
    solve_coefficients,
    sweep_coefficients,
)
from assets.factorization.coordinate_solver import (
    fit_coordinate,
    penalized_objective,
    reseed,
    sweep_dictionary,
)
from assets.factorization.initialization import initial_dictionary
from assets.factorization.sparse_rows import dictionary_products, keep_largest, unit_rows
from assets.factorization.token_blocks import MatrixBlocks, MemoryStore


def dense_objective(activations, coefficients, dictionary, penalty):
    """½‖A - Y Z‖² + λ ΣY, spelled out; coefficients are Y."""
    residual = activations - coefficients @ dictionary
    return 0.5 * float(residual.square().sum()) + penalty * float(coefficients.sum())


def firm_penalty(value, penalty, concavity):
    """p(y) of one coefficient, by its two cases."""
    if concavity and value > penalty / concavity:
        return penalty**2 / (2 * concavity)
    return penalty * value - concavity * value**2 / 2


def fitted(activations, start, size, penalty, concavity=0.0, **settings):
    """fit_coordinate on a matrix; the result, and Y before the last dictionary update."""
    blocks = MatrixBlocks(activations)
    store = MemoryStore(blocks, len(start), start)
    result = fit_coordinate(
        blocks, 1.0, start, size, penalty, concavity=concavity, store=store, **settings
    )
    return result, store.load(0).t()


def random_problem(seed, n_tokens=40, width=24, n_features=5, size=4):
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    activations = torch.randn(n_tokens, width, **options)
    dictionary = unit_rows(keep_largest(torch.randn(n_features, width, **options), size))
    coefficients = torch.rand(n_tokens, n_features, **options)
    coefficients = coefficients * (torch.rand(n_tokens, n_features, **options) < 0.6)
    return activations, coefficients, dictionary, size


@pytest.mark.parametrize("n_features", [1, 5, FEATURE_BLOCK + 3])
@pytest.mark.parametrize("penalty", [0.0, 0.2])
def test_a_coefficient_sweep_is_sequential_exact_minimization(n_features, penalty):
    activations, start, dictionary, _ = random_problem(3, n_features=n_features)
    dictionary = 1.7 * dictionary  # the update divides by ‖z‖², whatever it is
    expected = start.clone()
    for j in range(n_features):
        others = activations - expected @ dictionary + torch.outer(expected[:, j], dictionary[j])
        best = (others @ dictionary[j] - penalty) / dictionary[j].square().sum()
        expected[:, j] = best.clamp(min=0)
    swept = start.t().contiguous().clone()
    sweep_coefficients(swept, dictionary @ activations.t(), dictionary @ dictionary.t(), penalty)
    torch.testing.assert_close(swept.t(), expected, rtol=1e-9, atol=1e-10)


def test_a_coefficient_update_beats_every_other_value_of_its_block():
    activations, start, dictionary, _ = random_problem(4)
    swept = start.t().contiguous().clone()
    sweep_coefficients(swept, dictionary @ activations.t(), dictionary @ dictionary.t(), 0.1)
    last = dictionary.shape[0] - 1  # the last feature is at its optimum after the sweep
    best = dense_objective(activations, swept.t(), dictionary, 0.1)
    for change in (-0.3, -1e-3, 1e-3, 0.3):
        moved = swept.clone()
        moved[last] = (moved[last] + change).clamp(min=0)
        assert dense_objective(activations, moved.t(), dictionary, 0.1) >= best - 1e-12


@pytest.mark.parametrize("concavity", [0.0, 0.3, 0.9])
def test_the_firm_threshold_is_the_minimum_of_its_block(concavity):
    """Unit rows, so that the block is ½(y - u)² + p(y); a scalar optimizer finds its minimum."""
    penalty = 0.4
    activations = torch.linspace(-1, 2, 31, dtype=torch.float64)[:, None]
    swept = torch.zeros(1, 31, dtype=torch.float64)
    one = torch.ones(1, 1, dtype=torch.float64)
    sweep_coefficients(swept, activations.t().contiguous(), one, penalty, concavity)
    for u, found in zip(activations.flatten().tolist(), swept.flatten().tolist(), strict=True):

        def block(y, u=u):
            return 0.5 * (y - u) ** 2 + firm_penalty(y, penalty, concavity)

        best = minimize_scalar(block, bounds=(0, 4), method="bounded", options={"xatol": 1e-10})
        assert block(found) <= min(best.fun, block(0.0)) + 1e-9


@pytest.mark.parametrize("concavity", [0.0, 0.3, 0.9])
def test_the_penalty_is_the_sum_of_its_two_cases(concavity):
    coefficients = torch.rand(4, 50, dtype=torch.float64)
    expected = sum(firm_penalty(y, 0.2, concavity) for y in coefficients.flatten().tolist())
    assert penalty_value(coefficients, 0.2, concavity) == pytest.approx(expected)


@pytest.mark.parametrize("n_features", [5, FEATURE_BLOCK + 3])
def test_a_dictionary_sweep_is_sequential_and_each_block_is_the_closed_form(n_features):
    activations, coefficients, dictionary, size = random_problem(5, n_features=n_features)
    expected = dictionary.clone()
    for j in range(n_features):
        y = coefficients[:, j]
        others = activations - coefficients @ expected + torch.outer(y, expected[j])
        expected[j] = unit_rows(keep_largest((others.t() @ y)[None], size))[0]
    swept = dictionary.clone()
    sweep_dictionary(swept, coefficients.t() @ activations, coefficients.t() @ coefficients, size)
    torch.testing.assert_close(swept, expected, rtol=1e-8, atol=1e-9)


def test_a_dictionary_block_is_the_best_unit_row_of_all_supports():
    """On a support the best unit row is its part of the correlation, by Cauchy and Schwarz."""
    width, size = 6, 2
    activations, coefficients, dictionary, _ = random_problem(6, 12, width, 1, size)
    y = coefficients[:, 0]
    rows = []
    for support in itertools.combinations(range(width), size):
        row = torch.zeros(width, dtype=torch.float64)
        row[list(support)] = (activations.t() @ y)[list(support)]
        rows += [row / row.norm(), -row / row.norm()]
    best = min(dense_objective(activations, coefficients, row[None], 0.0) for row in rows)
    swept = dictionary.clone()
    sweep_dictionary(swept, coefficients.t() @ activations, coefficients.t() @ coefficients, size)
    assert dense_objective(activations, coefficients, swept, 0.0) == pytest.approx(best, abs=1e-9)


def test_a_dead_or_unsupported_feature_keeps_its_row():
    activations, coefficients, dictionary, size = random_problem(7)
    coefficients[:, 1] = 0
    products, gram = coefficients.t() @ activations, coefficients.t() @ coefficients
    products[3], gram[3], gram[:, 3] = 0, 0, 0
    gram[3, 3] = -0.0
    swept = dictionary.clone()
    sweep_dictionary(swept, products, gram, size)
    assert torch.equal(swept[[1, 3]], dictionary[[1, 3]])
    torch.testing.assert_close(swept.norm(dim=1), torch.ones(5, dtype=torch.float64))


def test_the_trace_identity_is_the_dense_objective():
    activations, coefficients, dictionary, _ = random_problem(8)
    by_identity = penalized_objective(
        dictionary,
        coefficients.t() @ activations,
        coefficients.t() @ coefficients,
        float(coefficients.sum()),
        float(activations.square().sum()),
        0.7,
    )
    by_definition = dense_objective(activations, coefficients, dictionary, 0.7)
    assert by_identity == pytest.approx(by_definition, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sparse_products_equal_the_dense_ones(dtype):
    dictionary = keep_largest(torch.randn(7, 300, dtype=dtype), 3)
    dictionary[2] = 0  # a row with fewer non-zeros than the size
    neurons = torch.randn(300, 50, dtype=dtype)
    products = dictionary_products(dictionary, neurons, 3)
    torch.testing.assert_close(products, dictionary @ neurons, rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    penalty=st.sampled_from([0.0, 0.03, 0.3, 1.0]),
    concavity=st.sampled_from([0.0, 0.5, 0.9]),
    size=st.integers(1, 20),
    n_features=st.integers(1, 20),
    n_duplicates=st.integers(0, 6),
)
def test_the_objective_never_rises(seed, penalty, concavity, size, n_features, n_duplicates):
    """Duplicate starting rows make dead features, so that re-seeding is part of what is tested."""
    generator = torch.Generator().manual_seed(seed)
    activations = torch.randn(60, 20, generator=generator, dtype=torch.float64)
    activations[:5] = 0
    blocks = MatrixBlocks(activations)
    start = initial_dictionary(blocks, 1.0, n_features, size, "random", generator)
    start[: min(n_duplicates, n_features)] = start[-1].clone()
    result, found = fitted(activations, start, size, penalty, concavity, max_iter=30, tol=0)
    trace = np.array([0.5 * float(activations.square().sum()), *result.objective_trace])
    assert (np.diff(trace) <= 1e-9 * trace[0]).all()
    final = dense_objective(activations, found, result.dictionary, 0.0)
    final += sum(firm_penalty(y, penalty, result.concavity) for y in found.flatten().tolist())
    assert final == pytest.approx(result.objective_trace[-1], rel=1e-9, abs=1e-9)
    assert (found >= 0).all()
    assert ((result.dictionary != 0).sum(dim=1) <= size).all()
    torch.testing.assert_close(
        result.dictionary.norm(dim=1), torch.ones(n_features, dtype=torch.float64)
    )


def test_reseeding_leaves_the_objective_and_points_at_the_worst_token():
    activations, _, dictionary, size = random_problem(9)
    activations[17] *= 50
    activations[:, 0] = 0
    dictionary[3] = torch.eye(24, dtype=torch.float64)[0]  # the silent neuron: nothing to do
    result, found = fitted(activations, dictionary, size, 0.1, max_iter=1, tol=0)
    assert (found[:, 3] == 0).all()
    unexplained = activations - found @ dictionary
    worst = unexplained.square().sum(dim=1).argmax()
    expected = unit_rows(keep_largest(unexplained[worst : worst + 1], size))[0]
    torch.testing.assert_close(result.dictionary[3], expected)


def test_a_row_that_cannot_overcome_the_penalty_is_not_given():
    dictionary = torch.eye(3, dtype=torch.float64)
    worst = torch.tensor([[0.0, 0.0, 2.0], [0.5, 0.0, 0.0]], dtype=torch.float64)
    assert reseed(dictionary, torch.tensor([True, True, True]), worst, penalty=1.0) == 1
    assert torch.equal(dictionary[0], torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    assert torch.equal(dictionary[1:], torch.eye(3, dtype=torch.float64)[1:])


def test_a_dead_feature_comes_to_life_in_a_fit(planted):
    """All rows start the same: without re-seeding one feature would take all and the rest none."""
    data = planted(noise=0.0)
    start = data.dictionary[:1].repeat(10, 1)
    result, found = fitted(data.activations, start, 6, 0.01, max_iter=100, tol=1e-6)
    assert int((~(found > 0).any(dim=0)).sum()) == 0
    residual = data.activations - found @ result.dictionary
    assert 1 - residual.square().sum() / data.activations.square().sum() > 0.9


def test_solved_coefficients_are_those_of_nnls():
    activations, _, dictionary, size = random_problem(10, n_features=8)
    solved = solve_coefficients(
        activations.t().contiguous(), dictionary, size, 0.0, max_sweeps=2_000, tol=1e-10
    )
    expected = np.stack([nnls(dictionary.T.numpy(), row)[0] for row in activations.numpy()])
    assert solved.is_converged
    np.testing.assert_allclose(solved.coefficients.T.numpy(), expected, atol=1e-7)


def test_penalised_coefficients_meet_the_optimality_conditions():
    activations, _, dictionary, size = random_problem(11, n_features=8)
    solved = solve_coefficients(
        activations.t().contiguous(), dictionary, size, 0.2, max_sweeps=2_000, tol=1e-10
    )
    found = solved.coefficients.t()
    gradient = (found @ dictionary - activations) @ dictionary.t() + 0.2
    assert gradient[found > 0].abs().max() < 1e-7
    assert gradient[found == 0].min() > -1e-7


def test_a_token_is_solved_by_itself():
    activations, _, dictionary, size = random_problem(12, n_tokens=200, n_features=12)
    neurons = activations.t().contiguous()
    together = solve_coefficients(neurons, dictionary, size, 0.1)
    alone = solve_coefficients(neurons[:, 7:8].contiguous(), dictionary, size, 0.1)
    torch.testing.assert_close(together.coefficients[:, 7:8], alone.coefficients)


def test_an_unfinished_solve_says_so():
    activations, _, dictionary, size = random_problem(13, n_features=12)
    solved = solve_coefficients(
        activations.t().contiguous(), dictionary, size, 0.0, max_sweeps=1, tol=1e-12
    )
    assert not solved.is_converged
    assert solved.n_sweeps == 1
    assert solved.n_unconverged_tokens > 0


def test_a_row_too_short_to_divide_by_counts_as_zero():
    dictionary = torch.tensor([[1.0, 0.0], [0.0, 1e-21]])
    swept = torch.ones(2, 3)
    sweep_coefficients(swept, dictionary @ torch.ones(2, 3), dictionary @ dictionary.t(), 0.0)
    assert torch.equal(swept, torch.tensor([[1.0] * 3, [0.0] * 3]))
