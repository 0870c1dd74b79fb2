"""The comparators in the common form, and how massive tokens and bad input are treated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factorization.conftest import settings_for

from assets.factorization.config import FitConfig
from assets.factorization.inputs import FactorizationError
from assets.factorization.methods import METHODS, factorize
from assets.factorization.metrics import best_auroc
from assets.factorization.semi_nmf import SemiNMF

N_DOCUMENTS, TOKENS, WIDTH = 60, 8, 150
CONCEPTS = ("colour", "month", "number")


def concept_activations(seed=0):
    """Documents of three concepts and of none: each concept adds its own few neurons to a token."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.zeros(3, WIDTH)
    for i in range(3):
        directions[i, 10 * i : 10 * i + 4] = 1.0
    names = [*CONCEPTS, None]
    documents = [names[i % 4] for i in range(N_DOCUMENTS)]
    rows, concepts, index = [], [], []
    for i, concept in enumerate(documents):
        tokens = 0.3 * torch.randn(TOKENS, WIDTH, generator=generator)
        if concept is not None:
            tokens[2:5] += directions[CONCEPTS.index(concept)]
        rows.append(tokens)
        concepts += [concept] * TOKENS
        index += [i] * TOKENS
    return torch.cat(rows), concepts, torch.tensor(index), documents


def config(method, **settings):
    rank = {} if method == "diff_means" else {"rank": 8}
    return FitConfig(
        method=method, **settings_for(method, **({"keep_fraction": 0.03} | rank | settings))
    )


def mlp_inputs(activations):
    """What a transcoder reads: activations of another width from which these follow."""
    generator = torch.Generator().manual_seed(99)
    return activations @ torch.randn(WIDTH, 170, generator=generator)


def fitted(activations, fit, **options):
    """factorize, with what the method reads beside the activations."""
    if fit.method == "transcoder":
        options["input_activations"] = mlp_inputs(activations)
    return factorize(activations, fit, **options)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_gives_the_same_form(method):
    activations, concepts, _, _ = concept_activations()
    result = fitted(activations, config(method), concepts=concepts, seed=5)
    assert result.method == method
    assert result.seed == 5
    assert (
        result.dictionary.shape == (result.n_features, WIDTH) == (result.n_features, result.width)
    )
    assert result.coefficients.shape == (N_DOCUMENTS * TOKENS, result.n_features)
    assert result.n_tokens == result.n_tokens_fit == N_DOCUMENTS * TOKENS
    assert (result.coefficients >= 0).all()
    torch.testing.assert_close(result.dictionary.norm(dim=1), torch.ones(result.n_features))
    assert len(result.feature_names) == result.n_features
    assert result.is_converged or method == "nmf"
    assert result.stop_reason
    assert result.explained_variance == result.explained_variance_all_tokens
    offset = 0 if result.offset is None else result.offset
    residual = activations - result.coefficients @ result.dictionary - offset
    explained = 1 - float(residual.square().sum() / activations.square().sum())
    assert result.explained_variance == pytest.approx(explained, abs=1e-5)
    spread = (activations - activations.mean(dim=0)).square().sum()
    centred = 1 - float(residual.square().sum() / spread)
    assert result.explained_variance_centered == pytest.approx(centred, abs=1e-5)
    assert result.l0 == pytest.approx(float((result.coefficients > 0).float().sum(1).mean()))
    again = fitted(activations, config(method), concepts=concepts, seed=5)
    assert torch.equal(result.dictionary, again.dictionary)
    assert torch.equal(result.coefficients, again.coefficients)


def test_snmf_is_the_estimator_with_the_fits_settings():
    activations, *_ = concept_activations()
    settings = {"coefficient_penalty": 0.05, "init": "random", "max_iter": 7, "tol": 1e-9}
    result = factorize(activations, config("snmf", **settings), seed=4)
    model = SemiNMF(n_components=8, keep_fraction=0.03, random_state=4, **settings)
    assert torch.equal(result.coefficients, model.fit_transform(activations))
    assert torch.equal(result.dictionary, model.components_)
    assert result.objective_trace == model.objective_trace_
    assert result.n_iter == 7
    assert not result.is_converged


@pytest.mark.parametrize("method", ["snmf", "random", "permuted", "covariance"])
def test_sparse_methods_keep_to_their_neurons(method):
    activations, concepts, _, _ = concept_activations()
    result = factorize(activations, config(method), concepts=concepts)
    assert ((result.dictionary != 0).sum(dim=1) <= 5).all()


def test_concepts_are_separated_by_diff_means_and_not_by_the_controls():
    activations, concepts, index, documents = concept_activations()
    scores = {}
    for method in METHODS:
        result = fitted(activations, config(method), concepts=concepts)
        scores[method] = best_auroc(result.coefficients, index, documents)["auroc"].min()
    assert scores["diff_means"] > 0.99
    assert scores["snmf"] > 0.9
    assert scores["random"] < 0.85
    assert scores["permuted"] < 0.85


def test_diff_means_directions_are_the_differences_of_means():
    activations, concepts, _, _ = concept_activations()
    result = factorize(activations, config("diff_means"), concepts=concepts)
    assert result.feature_names == list(CONCEPTS)
    labels = np.array([c or "" for c in concepts])
    for i, name in enumerate(CONCEPTS):
        inside = torch.from_numpy(labels == name)
        expected = activations[inside].mean(dim=0) - activations[~inside].mean(dim=0)
        torch.testing.assert_close(
            result.dictionary[i], expected / expected.norm(), rtol=1e-4, atol=1e-5
        )
    torch.testing.assert_close(
        result.coefficients, (activations @ result.dictionary.t()).clamp(min=0)
    )


@pytest.mark.parametrize(
    ("concepts", "message"),
    [
        (None, "found none"),
        (["colour"], "found 1"),
        ([None] * 480, "no token of the fit has a concept"),
        (["colour"] * 480, "'colour' holds all 480 tokens"),
    ],
)
def test_diff_means_needs_concepts(concepts, message):
    activations, *_ = concept_activations()
    with pytest.raises(FactorizationError, match=message):
        factorize(activations, config("diff_means"), concepts=concepts)


def test_a_concept_without_a_direction_is_named():
    activations = torch.ones(20, 6)
    with pytest.raises(FactorizationError, match="'a' has the same mean"):
        factorize(activations, config("diff_means"), concepts=["a", "b"] * 10)


def test_pca_reconstructs_from_both_signs():
    generator = torch.Generator().manual_seed(0)
    activations = 5 + torch.randn(100, 3, generator=generator) @ torch.randn(
        3, 20, generator=generator
    )
    result = factorize(activations, config("pca", rank=6))
    assert result.offset is not None
    rebuilt = result.coefficients @ result.dictionary + result.offset
    torch.testing.assert_close(rebuilt, activations, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(result.dictionary[0::2], -result.dictionary[1::2])
    assert ((result.coefficients[:, 0::2] > 0) & (result.coefficients[:, 1::2] > 0)).sum() == 0
    fewer = factorize(activations, config("pca", rank=2))
    assert fewer.explained_variance_centered < result.explained_variance_centered


def test_pca_of_too_high_a_rank_is_refused():
    with pytest.raises(FactorizationError, match="needs 10 components; 5 tokens of width 8"):
        factorize(torch.randn(5, 8), config("pca", rank=20))


def test_permuted_keeps_each_features_weights_and_moves_them():
    activations, *_ = concept_activations()
    fitted = factorize(activations, config("snmf"), seed=3)
    permuted = factorize(activations, config("permuted"), seed=3)
    assert not torch.equal(fitted.dictionary, permuted.dictionary)
    torch.testing.assert_close(
        fitted.dictionary.sort(dim=1).values, permuted.dictionary.sort(dim=1).values
    )
    moved = ((fitted.dictionary != 0) & (permuted.dictionary != 0)).sum(dim=1)
    assert moved.sum() < 0.3 * (fitted.dictionary != 0).sum()
    assert permuted.explained_variance < fitted.explained_variance


def test_random_directions_have_their_sparsity_and_change_with_the_seed():
    activations, *_ = concept_activations()
    first, second = (factorize(activations, config("random"), seed=seed) for seed in (0, 1))
    assert ((first.dictionary != 0).sum(dim=1) == 5).all()
    assert not torch.equal(first.dictionary, second.dictionary)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_massive_tokens_do_not_move_the_fit_and_have_coefficients(method):
    activations, concepts, _, _ = concept_activations()
    clean = fitted(activations, config(method), concepts=concepts)
    massive = torch.zeros(2, WIDTH)
    massive[:, 7] = 5_000.0
    is_massive = torch.zeros(len(activations) + 2, dtype=torch.bool)
    is_massive[[0, 101]] = True
    together = torch.empty(len(is_massive), WIDTH)
    together[is_massive], together[~is_massive] = massive, activations
    names = np.empty(len(is_massive), dtype=object)
    names[~is_massive.numpy()] = concepts
    result = fitted(together, config(method), concepts=names.tolist(), is_massive=is_massive)
    torch.testing.assert_close(result.dictionary, clean.dictionary)
    torch.testing.assert_close(
        result.coefficients[~is_massive], clean.coefficients, rtol=1e-3, atol=1e-3
    )
    assert torch.isfinite(result.coefficients).all()
    assert result.n_tokens == len(activations) + 2
    assert result.n_tokens_fit == len(activations)
    assert result.n_massive_excluded == 2
    assert result.explained_variance == pytest.approx(clean.explained_variance, abs=1e-4)
    assert result.explained_variance_all_tokens != pytest.approx(clean.explained_variance, abs=1e-3)


def test_the_fits_seed_is_used_unless_another_is_given():
    activations, *_ = concept_activations()
    by_config = factorize(activations, config("random", seed=9))
    by_argument = factorize(activations, config("random"), seed=9)
    assert by_config.seed == by_argument.seed == 9
    assert torch.equal(by_config.dictionary, by_argument.dictionary)


def test_flags_of_the_wrong_shape_and_nothing_to_fit_are_refused():
    activations = torch.randn(20, 8)
    with pytest.raises(FactorizationError, match="one flag for each of the 20 tokens"):
        factorize(activations, config("snmf"), is_massive=torch.zeros(3, dtype=torch.bool))
    with pytest.raises(FactorizationError, match="all 20 tokens are flagged massive"):
        factorize(activations, config("snmf"), is_massive=torch.ones(20, dtype=torch.bool))


@pytest.mark.parametrize(
    "method",
    ["snmf", "sae", "transcoder", "kmeans", "nmf", "random", "permuted", "covariance"],
)
def test_a_rank_above_the_tokens_of_the_fit_is_refused(method):
    is_massive = torch.zeros(10, dtype=torch.bool)
    is_massive[:4] = True
    with pytest.raises(FactorizationError, match="rank 8 exceeds the 6 tokens"):
        fitted(torch.randn(10, WIDTH), config(method), is_massive=is_massive)


def test_supervised_fits_leave_out_what_is_held_out() -> None:
    generator = torch.Generator().manual_seed(0)
    activations = torch.randn(60, 8, generator=generator)
    concepts = ["a" if i % 2 else "b" for i in range(60)]
    is_held_out = torch.arange(60) >= 30
    changed = activations.clone()
    changed[30:] += 100.0 * torch.randn(30, 8, generator=generator)
    fit = FitConfig(method="diff_means")
    one, other = (
        factorize(matrix, fit, concepts=concepts, is_held_out=is_held_out)
        for matrix in (activations, changed)
    )
    assert torch.equal(one.dictionary, other.dictionary)
    assert one.coefficients.shape == (60, 2)
    assert one.n_tokens_fit == 30 and one.n_massive_excluded == 0
    unsupervised = factorize(activations, FitConfig(method="pca", rank=2), is_held_out=is_held_out)
    assert unsupervised.n_tokens_fit == 60
