"""The estimator: recovery, constraints, units, seeds and kinds of input."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.base import clone

from assets.factorization.metrics import match_features
from assets.factorization.semi_nmf import SemiNMF
from tests.factorization.small_estimator import estimator


@pytest.mark.parametrize(("init", "least_recovered"), [("kmeans", 57), ("random", 50), ("svd", 50)])
def test_coordinate_recovers_planted_dictionaries(planted, init, least_recovered):
    """Six of ten features each: nearly all from the default start, which may miss some."""
    n_recovered = 0
    for seed in range(6):
        data = planted(seed=seed)
        model = estimator(init=init, random_state=seed, tol=1e-5).fit(data.activations)
        n_recovered += (match_features(data.dictionary, model.components_).cosine > 0.98).sum()
        assert model.explained_variance_ > 0.9
    assert n_recovered >= least_recovered


def test_another_dictionary_is_not_recovered(planted):
    """The control: cosines above the threshold do not come for free."""
    data = planted()
    other = planted(seed=50)
    model = estimator().fit(other.activations)
    match = match_features(data.dictionary, model.components_)
    assert (match.cosine < 0.9).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_multiplicative_recovers_a_planted_dictionary(planted, seed):
    data = planted(seed=seed)
    model = estimator(solver="multiplicative", init="random", max_iter=400, random_state=seed).fit(
        data.activations
    )
    match = match_features(data.dictionary, model.components_)
    assert (match.cosine > 0.98).sum() == 10


@pytest.mark.parametrize("solver", ["coordinate", "multiplicative"])
@pytest.mark.parametrize("keep_fraction", [0.001, 0.05, 1.0])
def test_constraints_hold(planted, solver, keep_fraction):
    data = planted(n_tokens=150)
    model = estimator(keep_fraction, solver=solver, max_iter=20)
    coefficients = model.fit_transform(data.activations)
    size = int(np.ceil(keep_fraction * 120))
    assert coefficients.shape == (150, 10)
    assert model.components_.shape == (10, 120)
    assert (coefficients >= 0).all()
    assert ((model.components_ != 0).sum(dim=1) <= size).all()
    torch.testing.assert_close(model.components_.norm(dim=1), torch.ones(10))


def test_coefficients_are_in_the_units_of_the_activations(planted):
    data = planted()
    small = estimator().fit(data.activations)
    large = estimator().fit(1_000 * data.activations)
    torch.testing.assert_close(large.components_, small.components_, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        large.transform(1_000 * data.activations),
        1_000 * small.transform(data.activations),
        rtol=1e-2,
        atol=0.5,
    )
    reconstruction = small.transform(data.activations) @ small.components_
    residual = (data.activations - reconstruction).square().sum()
    explained = 1 - residual / data.activations.square().sum()
    assert explained == pytest.approx(small.explained_variance_, abs=1e-3)


def test_transform_of_the_fits_tokens_gives_the_fitted_coefficients(planted):
    data = planted()
    model = estimator()
    fitted = model.fit_transform(data.activations)
    solved = model.transform(data.activations)
    torch.testing.assert_close(solved, fitted, rtol=5e-3, atol=2e-3)


def test_new_tokens_get_their_planted_coefficients(planted):
    data = planted(n_tokens=1_200)
    model = estimator(coefficient_penalty=0.001).fit(data.activations[:600])
    found = model.transform(data.activations[600:])
    match = match_features(data.dictionary, model.components_)
    difference = found[:, match.other] - data.coefficients[600:][:, match.own]
    kept = torch.from_numpy(match.cosine > 0.98)
    assert difference[:, kept].abs().mean() < 0.03


def test_a_penalty_makes_coefficients_sparser(planted):
    data = planted(noise=0.1)
    shares = [
        float((estimator(coefficient_penalty=p).fit_transform(data.activations) > 0).float().mean())
        for p in (0.0, 0.03, 0.2)
    ]
    assert shares[0] > shares[1] > shares[2]


def test_seeds(planted):
    data = planted(noise=0.3)
    first, again, other = (
        estimator(init="random", random_state=seed, max_iter=5).fit(data.activations)
        for seed in (0, 0, 1)
    )
    assert torch.equal(first.components_, again.components_)
    assert first.objective_trace_ == again.objective_trace_
    assert not torch.allclose(first.components_, other.components_)


def test_the_order_of_tokens_only_reorders_coefficients(planted):
    """One feature has one k-means cluster, whatever token it started from."""
    data = planted()
    order = torch.randperm(600, generator=torch.Generator().manual_seed(3))
    model = estimator(n_components=1)
    plain, shuffled = (model.fit_transform(a) for a in (data.activations, data.activations[order]))
    torch.testing.assert_close(plain[order], shuffled, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("solver", ["coordinate", "multiplicative"])
def test_the_record_of_a_fit(planted, solver):
    data = planted(n_tokens=200)
    seen = []
    model = estimator(solver=solver, max_iter=4, tol=1e-12)
    model.fit(data.activations, on_iteration=lambda i, objective: seen.append((i, objective)))
    assert model.n_iter_ == len(model.objective_trace_) == 4
    assert not model.is_converged_
    assert "max_iter = 4" in model.stop_reason_
    assert [i for i, _ in seen] == [0, 1, 2, 3]
    assert [o for _, o in seen][:3] == model.objective_trace_[:3]


def test_convergence_is_recorded(planted):
    model = estimator(max_iter=500).fit(planted().activations)
    assert model.is_converged_
    assert model.n_iter_ < 500
    assert "less than 0.0003" in model.stop_reason_


def test_scikit_learns_protocol():
    model = estimator(solver="multiplicative", random_state=7)
    copy = clone(model)
    assert copy is not model
    assert copy.get_params() == model.get_params()
    assert copy.set_params(n_components=3).n_components == 3
    assert "n_components=10" in repr(model)
    assert not hasattr(copy, "components_")


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64])
def test_numpy_in_numpy_out(planted, dtype):
    array = (10 * planted(n_tokens=100).activations.numpy()).astype(dtype)
    model = estimator(max_iter=5)
    coefficients = model.fit_transform(array)
    expected = np.float64 if dtype is np.float64 else np.float32
    for result in (coefficients, model.components_, model.transform(array)):
        assert isinstance(result, np.ndarray)
        assert result.dtype == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_input_is_computed_in_float32(planted, dtype):
    data = planted()
    model = estimator()
    coefficients = model.fit_transform(data.activations.to(dtype))
    assert coefficients.dtype == model.components_.dtype == torch.float32
    full = estimator().fit(data.activations)
    assert model.explained_variance_ == pytest.approx(full.explained_variance_, abs=5e-3)


def test_numpy_and_torch_agree(planted):
    activations = planted(n_tokens=100).activations
    by_torch = estimator(max_iter=5).fit(activations)
    by_numpy = estimator(max_iter=5).fit(activations.numpy())
    np.testing.assert_array_equal(by_torch.components_.numpy(), by_numpy.components_)


def test_the_input_is_left_alone(planted):
    activations = planted(n_tokens=100).activations
    before = activations.clone()
    estimator(max_iter=3).fit_transform(activations)
    assert torch.equal(activations, before)


@pytest.mark.parametrize("solver", ["coordinate", "multiplicative"])
def test_all_zero_rows_get_zero_coefficients(planted, solver):
    activations = planted(n_tokens=100).activations
    activations[[0, 50]] = 0
    model = estimator(solver=solver, max_iter=20)
    fitted = model.fit_transform(activations)
    assert torch.isfinite(fitted).all()
    assert (fitted[[0, 50]] == 0).all()
    assert (model.transform(activations)[[0, 50]] == 0).all()


@pytest.mark.parametrize("solver", ["coordinate", "multiplicative"])
@pytest.mark.parametrize(
    "activations",
    [
        pytest.param(torch.tensor([[1.0, 2.0, -3.0, 0.5]]), id="one token"),
        pytest.param(torch.ones(30, 6), id="constant columns"),
        pytest.param(torch.arange(1.0, 5.0).repeat(30, 1), id="duplicate rows"),
        pytest.param(torch.linspace(-1, 1, 30)[:, None], id="one neuron"),
    ],
)
def test_rank_one_of_degenerate_activations(activations, solver):
    model = SemiNMF(
        n_components=1, keep_fraction=1.0, coefficient_penalty=0.0, solver=solver, max_iter=50
    )
    coefficients = model.fit_transform(activations)
    assert torch.isfinite(coefficients).all()
    assert torch.isfinite(model.components_).all()
    if activations.shape[1] > 1:
        assert model.explained_variance_ == pytest.approx(1, abs=1e-4)
        assert model.explained_variance_centered_ is None
    else:
        assert model.explained_variance_ == pytest.approx(0.5, abs=1e-4)


def test_a_rank_above_that_of_the_activations_explains_all():
    generator = torch.Generator().manual_seed(0)
    activations = torch.rand(80, 2, generator=generator) @ torch.randn(2, 30, generator=generator)
    model = SemiNMF(n_components=8, keep_fraction=1.0, coefficient_penalty=1e-4, tol=1e-7)
    model.fit(activations)
    assert model.explained_variance_ > 0.999


@pytest.mark.parametrize("solver", ["coordinate", "multiplicative"])
def test_the_explained_variance_trace_is_that_of_the_iterations(solver: str) -> None:
    activations = torch.randn(300, 40, generator=torch.Generator().manual_seed(3)).relu()
    model = SemiNMF(
        n_components=6,
        keep_fraction=0.3,
        solver=solver,
        coefficient_penalty=0.0,
        column_scaling=0.0,
        row_scaling=0.0,
        random_state=0,
    ).fit(activations)
    trace = model.explained_variance_trace_
    assert len(trace) == model.n_iter_ > 3
    assert max(trace) == pytest.approx(model.explained_variance_, abs=2e-3)
    if solver == "coordinate":  # without a penalty the objective is the reconstruction error
        assert all(later >= earlier - 1e-6 for earlier, later in pairwise(trace))
