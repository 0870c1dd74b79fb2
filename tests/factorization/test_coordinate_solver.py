"""The coordinate solver against independent, naive minimizers of each of its blocks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, nnls

from assets.factorization.coefficient_solver import (
    FEATURE_BLOCK,
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


def dense_objective(activations, coefficients, dictionary, penalty):
    """½‖A - Y Z‖² + λ ΣY, spelled out; coefficients are Y."""
    residual = activations - coefficients @ dictionary
    return 0.5 * float(residual.square().sum()) + penalty * float(coefficients.sum())


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


@pytest.mark.parametrize("penalty", [0.0, 0.2])
@pytest.mark.parametrize("n_features", [5, FEATURE_BLOCK + 3])
def test_a_dictionary_sweep_is_sequential_and_each_block_is_the_closed_form(n_features, penalty):
    activations, coefficients, dictionary, size = random_problem(5, n_features=n_features)
    expected_z, expected_y = dictionary.clone(), coefficients.clone()
    for j in range(n_features):
        y = expected_y[:, j].clone()
        others = activations - expected_y @ expected_z + torch.outer(y, expected_z[j])
        row = keep_largest((others.t() @ y / y.square().sum())[None], size)[0]
        shrunk = max(0.0, 1 - penalty * float(y.sum()) / float(y.square().sum() * row.norm()))
        expected_z[j] = row / row.norm()
        expected_y[:, j] = y * shrunk * row.norm()
    swept = dictionary.clone()
    scales = sweep_dictionary(
        swept,
        coefficients.t() @ activations,
        coefficients.t() @ coefficients,
        coefficients.sum(dim=0),
        size,
        penalty,
    )
    torch.testing.assert_close(swept, expected_z, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(coefficients * scales, expected_y, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_a_dictionary_block_is_the_global_minimum_over_all_supports(penalty):
    """Every support of the row is tried; within one, a general optimizer finds the best row."""
    width, size = 6, 2
    activations, coefficients, dictionary, _ = random_problem(6, 12, width, 1, size)
    y = coefficients[:, 0].numpy()
    target, total = activations.numpy(), float(y.sum())

    def loss(values, support):
        row = np.zeros(width)
        row[list(support)] = values
        residual = target - np.outer(y, row)
        return 0.5 * (residual**2).sum() + penalty * total * np.linalg.norm(row)

    best = min(
        minimize(
            loss,
            np.ones(size) * sign,
            args=(support,),
            method="Nelder-Mead",
            options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000},
        ).fun
        for support in itertools.combinations(range(width), size)
        for sign in (1.0, -1.0)
    )
    swept = dictionary.clone()
    scales = sweep_dictionary(
        swept,
        coefficients.t() @ activations,
        coefficients.t() @ coefficients,
        coefficients.sum(dim=0),
        size,
        penalty,
    )
    found = dense_objective(activations, coefficients * scales, swept, penalty)
    assert found == pytest.approx(best, abs=1e-7)


def test_a_strong_penalty_kills_a_feature_and_leaves_a_unit_row():
    activations, coefficients, dictionary, size = random_problem(7)
    scales = sweep_dictionary(
        dictionary,
        coefficients.t() @ activations,
        coefficients.t() @ coefficients,
        coefficients.sum(dim=0),
        size,
        1e4,
    )
    assert (scales == 0).all()
    torch.testing.assert_close(dictionary.norm(dim=1), torch.ones(5, dtype=torch.float64))


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
    size=st.integers(1, 20),
    n_features=st.integers(1, 20),
    n_duplicates=st.integers(0, 6),
)
def test_the_objective_never_rises(seed, penalty, size, n_features, n_duplicates):
    """Duplicate starting rows make dead features, so that re-seeding is part of what is tested."""
    generator = torch.Generator().manual_seed(seed)
    activations = torch.randn(60, 20, generator=generator, dtype=torch.float64)
    activations[:5] = 0
    neurons = activations.t().contiguous()
    start = initial_dictionary(neurons, n_features, size, "random", generator)
    start[: min(n_duplicates, n_features)] = start[-1].clone()
    result = fit_coordinate(neurons, start, size, penalty, max_iter=12, tol=0)
    trace = np.array([0.5 * float(activations.square().sum()), *result.objective_trace])
    assert (np.diff(trace) <= 1e-9 * trace[0]).all()
    final = dense_objective(activations, result.coefficients.t(), result.dictionary, penalty)
    assert final == pytest.approx(result.objective_trace[-1], rel=1e-9, abs=1e-9)
    assert (result.coefficients >= 0).all()
    assert ((result.dictionary != 0).sum(dim=1) <= size).all()
    torch.testing.assert_close(
        result.dictionary.norm(dim=1), torch.ones(n_features, dtype=torch.float64)
    )


def test_reseeding_leaves_the_objective_and_points_at_the_worst_token():
    activations, coefficients, dictionary, size = random_problem(9)
    coefficients[:, 2] = 0
    activations[17] *= 50
    before = dense_objective(activations, coefficients, dictionary, 0.1)
    wanted = torch.tensor([False, False, True, False, False])
    residual = activations - coefficients @ dictionary
    n_changed = reseed(
        dictionary,
        activations.t().contiguous(),
        coefficients.t().contiguous(),
        wanted,
        residual.square().sum(dim=1),
        size,
        0.1,
    )
    assert n_changed == 1
    assert dense_objective(activations, coefficients, dictionary, 0.1) == before
    torch.testing.assert_close(dictionary[2], unit_rows(keep_largest(residual[17:18], size))[0])


def test_a_dead_feature_comes_to_life_in_a_fit(planted):
    """All rows start the same: without re-seeding one feature would take all and the rest none."""
    data = planted(noise=0.0)
    neurons = data.activations.t().contiguous()
    start = data.dictionary[:1].repeat(10, 1)
    result = fit_coordinate(neurons, start, 6, 0.01, max_iter=100, tol=1e-6)
    assert int((~(result.coefficients > 0).any(dim=1)).sum()) == 0
    residual = data.activations - result.coefficients.t() @ result.dictionary
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
