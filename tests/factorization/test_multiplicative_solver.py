"""The paper's updates, against their formulas spelled out."""

from __future__ import annotations

import pytest
import torch

from assets.factorization.initialization import initial_coefficients
from assets.factorization.multiplicative_solver import (
    fit_multiplicative,
    least_squares_dictionary,
    multiply_coefficients,
)
from assets.factorization.sparse_rows import keep_largest


def positive_part(matrix):
    return (matrix.abs() + matrix) / 2


def negative_part(matrix):
    return (matrix.abs() - matrix) / 2


def naive_iteration(activations, coefficients, size):
    """One iteration with rows as tokens, matrices inverted and no identity used."""
    gram = coefficients.T @ coefficients
    ridge = 1e-6 * torch.eye(len(gram), dtype=gram.dtype)
    dictionary = torch.linalg.inv(gram + ridge) @ coefficients.T @ activations
    for row in dictionary:
        row[row.abs().argsort()[:-size]] = 0
    for j in range(len(dictionary)):
        norm = coefficients[:, j].norm()
        coefficients[:, j] /= norm
        dictionary[j] *= norm
    products, overlap = activations @ dictionary.T, dictionary @ dictionary.T
    above = positive_part(products) + coefficients @ negative_part(overlap)
    below = negative_part(products) + coefficients @ positive_part(overlap) + 1e-6
    return coefficients * (above / below).sqrt(), dictionary


def test_iterations_are_the_papers_updates():
    generator = torch.Generator().manual_seed(0)
    activations = torch.randn(50, 20, generator=generator, dtype=torch.float64)
    start = torch.rand(50, 4, generator=generator, dtype=torch.float64)
    expected_y = start.clone()
    losses = []
    for _ in range(5):
        expected_y, expected_z = naive_iteration(activations, expected_y.clone(), 3)
        losses.append(0.5 * float((activations - expected_y @ expected_z).square().sum()))
    result, coefficients = fit_multiplicative(
        activations.t().contiguous(), start.t().contiguous(), 3, max_iter=5, tol=0.0
    )
    assert result.objective_trace == pytest.approx(losses, rel=1e-9)
    assert losses[-1] == min(losses)
    torch.testing.assert_close(coefficients.t() @ result.dictionary, expected_y @ expected_z)
    torch.testing.assert_close(result.dictionary.norm(dim=1), torch.ones(4, dtype=torch.float64))


def test_without_sparsity_the_loss_falls():
    """Ding, Li and Jordan's theorem, which H_s breaks: the control that the updates are theirs."""
    generator = torch.Generator().manual_seed(1)
    neurons = torch.randn(15, 60, generator=generator, dtype=torch.float64)
    start = initial_coefficients(neurons, 5, "random", generator)
    result, _ = fit_multiplicative(neurons, start, 15, max_iter=60, tol=0.0)
    drops = torch.tensor(result.objective_trace).diff()
    assert (drops <= 1e-7).all()


def test_the_best_iteration_is_returned_and_patience_ends_the_fit(planted):
    data = planted(n_tokens=200, noise=0.3)
    neurons = data.activations.t().contiguous()
    start = initial_coefficients(neurons, 10, "random", torch.Generator().manual_seed(0))
    result, coefficients = fit_multiplicative(neurons, start, 6, max_iter=3_000, tol=1e-3)
    assert result.is_converged
    assert len(result.objective_trace) < 3_000
    residual = data.activations - coefficients.t() @ result.dictionary
    found = 0.5 * float(residual.square().sum())
    assert found == pytest.approx(min(result.objective_trace), rel=1e-4)


def test_the_steps_alone():
    generator = torch.Generator().manual_seed(2)
    coefficients = torch.rand(3, 30, generator=generator, dtype=torch.float64)
    activations = torch.randn(30, 8, generator=generator, dtype=torch.float64)
    gram, products = coefficients @ coefficients.t(), coefficients @ activations
    dictionary = least_squares_dictionary(gram, products)
    expected = torch.linalg.lstsq(coefficients.t(), activations).solution
    torch.testing.assert_close(dictionary, expected, rtol=1e-4, atol=1e-5)
    sparse = keep_largest(dictionary, 3)
    updated = multiply_coefficients(coefficients, sparse @ activations.t(), sparse @ sparse.t())
    assert (updated >= 0).all()
    before = (activations - coefficients.t() @ sparse).square().sum()
    assert (activations - updated.t() @ sparse).square().sum() <= before


@pytest.mark.parametrize("rounding", [0.0, 1e-7])
def test_a_cluster_whose_tokens_add_up_to_zero_starts_at_random(rounding):
    # From ones, the mean would be the dictionary: nothing, or whatever rounding points to.
    balanced = torch.tensor([[-1.0 + rounding, 1.0, -2.0, 2.0]])
    for neurons, is_drawn in ((balanced, True), (balanced.abs(), False)):
        start = initial_coefficients(neurons, 1, "kmeans", torch.Generator().manual_seed(0))
        assert bool(start.std() > 0.01) == is_drawn
        assert start.min() > 0
