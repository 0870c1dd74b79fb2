"""What holds for every method alike: the common form on awkward input, seeds, and orders."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from factorization.conftest import settings_for

from assets.factorization.config import FitConfig
from assets.factorization.factorization import Factors, FitTask, measured
from assets.factorization.inputs import FactorizationError
from assets.factorization.methods import METHODS, factorize

ALL_METHODS = sorted(METHODS)
WIDTH = 12
N_TOKENS = 40


def config(method, rank=4, **settings):
    chosen = {} if method == "diff_means" else {"rank": 2 * rank if method == "pca" else rank}
    values = {"keep_fraction": 0.4, "max_iter": 30, "init": "random"} | chosen | settings
    return FitConfig(method=method, **settings_for(method, **values))


def plain(n_tokens=N_TOKENS, width=WIDTH):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(n_tokens, width, generator=generator) + 0.5


def run(method, activations, rank=4, **options):
    n_tokens = len(activations)
    if method == "diff_means":
        options["concepts"] = ["a" if i % 2 else "b" for i in range(n_tokens)]
    if method == "transcoder":
        options.setdefault("input_activations", activations.roll(1, dims=1) * 2)
    return factorize(activations, config(method, rank), **options)


def assert_common_form(result, n_tokens, width):
    norms = result.dictionary.norm(dim=1)
    is_unit = (norms - 1).abs() < 1e-4
    assert (is_unit | (norms == 0)).all()
    assert result.dictionary.shape == (result.n_features, width)
    assert result.coefficients.shape == (n_tokens, result.n_features)
    assert torch.isfinite(result.coefficients).all() and (result.coefficients >= 0).all()
    assert result.offset is None or torch.isfinite(result.offset).all()
    assert not result.coefficients[:, norms == 0].any()
    explained = result.explained_variance
    assert explained is None or explained <= 1 + 1e-6
    assert result.stop_reason
    assert len(result.feature_names) == result.n_features


def with_zero_rows():
    rows = plain()
    rows[::3] = 0
    return rows


def with_duplicates():
    return plain(6).repeat(7, 1)


def with_constant_columns():
    rows = plain()
    rows[:, 3] = 7.0
    rows[:, 4] = 0.0
    return rows


def all_negative():
    return -plain().abs()


AWKWARD = {
    "zero rows": with_zero_rows,
    "duplicates": with_duplicates,
    "constant columns": with_constant_columns,
    "all negative": all_negative,
    "all rows equal": lambda: torch.ones(N_TOKENS, WIDTH),
    "one neuron": lambda: plain(width=1),
    "integers": lambda: torch.arange(N_TOKENS * WIDTH).reshape(N_TOKENS, WIDTH) % 7,
    "tiny": lambda: plain() * 1e-12,
    "huge": lambda: plain() * 1e12,
}
# What admits no fit, by method; everything else gives the common form.
REFUSED = {
    ("nmf", "all negative"): "no activation of the fit's tokens is above zero",
    ("kmeans", "all rows equal"): "kmeans of rank 4 found 1 clusters",
    ("diff_means", "all rows equal"): "has the same mean activation",
    ("pca", "one neuron"): "have at most 1",
    ("neurons", "one neuron"): "has 2 pairs of neuron and sign",
    ("covariance", "all rows equal"): "all 40 activation rows of the fit are alike",
}


@pytest.mark.parametrize("method", ALL_METHODS)
@pytest.mark.parametrize("case", sorted(AWKWARD))
def test_awkward_input_gives_the_common_form_or_a_reason(method, case):
    activations = AWKWARD[case]()
    message = REFUSED.get((method, case))
    if message is not None:
        with pytest.raises(FactorizationError, match=message):
            run(method, activations)
        return
    assert_common_form(run(method, activations), *activations.shape)


@pytest.mark.parametrize("method", ALL_METHODS)
def test_rank_one_is_a_fit(method):
    result = run(method, plain(), rank=1)
    assert result.n_features == (2 if method in ("diff_means", "pca") else 1)
    assert_common_form(result, N_TOKENS, WIDTH)


@pytest.mark.parametrize("method", ALL_METHODS)
def test_one_token_is_a_fit_of_rank_one_or_refused_in_words(method):
    activations = plain(1)
    if method == "diff_means":
        with pytest.raises(FactorizationError, match="holds all 1 tokens"):
            run(method, activations, rank=1)
        return
    if method == "covariance":
        with pytest.raises(FactorizationError, match="all 1 activation rows of the fit are alike"):
            run(method, activations, rank=1)
        return
    assert_common_form(run(method, activations, rank=1), 1, WIDTH)


@pytest.mark.parametrize("method", ALL_METHODS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_row_is_named(method, value):
    activations = plain()
    activations[17, 3] = value
    with pytest.raises(FactorizationError, match=r"1 of 40 activation rows \(rows 17\)"):
        run(method, activations)


@pytest.mark.parametrize("method", ALL_METHODS)
def test_all_zero_activations_are_refused_or_explain_nothing(method):
    zeros = torch.zeros(N_TOKENS, WIDTH)
    if method in ("neurons", "pca"):
        assert run(method, zeros).explained_variance is None
        return
    with pytest.raises(FactorizationError):
        run(method, zeros)


@pytest.mark.parametrize(
    "method", ["snmf", "sae", "transcoder", "kmeans", "random", "permuted", "covariance"]
)
def test_another_seed_gives_another_dictionary_and_the_same_seed_the_same(method):
    first, again, other = (run(method, plain(), seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.dictionary, again.dictionary)
    assert torch.equal(first.coefficients, again.coefficients)
    assert not torch.allclose(first.dictionary, other.dictionary)


@pytest.mark.parametrize("method", ["pca", "nmf", "neurons", "diff_means"])
def test_without_chance_the_seed_does_not_matter(method):
    first, other = (run(method, plain(), seed=seed) for seed in (3, 4))
    assert first.explained_variance == pytest.approx(other.explained_variance, abs=1e-3)


@pytest.mark.parametrize("method", ALL_METHODS)
def test_the_order_of_the_features_changes_no_measure(method):
    activations = plain()
    result = run(method, activations)
    order = torch.randperm(result.n_features, generator=torch.Generator().manual_seed(1))
    values = {f.name: getattr(result, f.name) for f in fields(Factors)}
    factors = replace(
        Factors(**values),
        dictionary=result.dictionary[order],
        coefficients=result.coefficients[:, order],
    )
    is_fit = torch.ones(len(activations), dtype=torch.bool)
    task = FitTask(activations, is_fit, config(method), 0, None, None)
    shuffled = measured(task, factors, 0.0, 0)
    for name in ("explained_variance", "explained_variance_centered", "l0", "n_dead_features"):
        assert getattr(shuffled, name) == pytest.approx(getattr(result, name), abs=1e-6), name


@pytest.mark.parametrize("method", ["pca", "nmf", "neurons", "diff_means", "kmeans"])
def test_the_order_of_the_neurons_does_not_matter(method):
    activations = plain()
    order = torch.randperm(WIDTH, generator=torch.Generator().manual_seed(1))
    straight, shuffled = run(method, activations), run(method, activations[:, order])
    assert shuffled.explained_variance == pytest.approx(straight.explained_variance, abs=1e-3)


@pytest.mark.parametrize("method", ALL_METHODS)
def test_coefficients_and_offset_are_in_the_units_of_the_activations(method):
    result, larger = (run(method, plain() * scale) for scale in (1.0, 8.0))
    torch.testing.assert_close(larger.dictionary, result.dictionary, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(larger.coefficients, 8 * result.coefficients, rtol=1e-3, atol=1e-2)
    assert (result.offset is None) == (larger.offset is None)
    if result.offset is not None and larger.offset is not None:
        torch.testing.assert_close(larger.offset, 8 * result.offset, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", ALL_METHODS)
def test_double_precision_stays(method):
    result = run(method, plain().double())
    assert result.coefficients.dtype == result.dictionary.dtype == torch.float64
