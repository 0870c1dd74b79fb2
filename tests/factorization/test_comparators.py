"""K-means, NMF and the neuron basis against what they are by definition."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from assets.factorization.config import FitConfig
from assets.factorization.inputs import FactorizationError
from assets.factorization.methods import factorize
from assets.factorization.metrics import match_features


def clusters(noise=0.05, width=30):
    """Four well-separated clusters; each token's number."""
    generator = torch.Generator().manual_seed(3)
    centres = 3 * torch.nn.functional.normalize(torch.randn(4, width, generator=generator), dim=1)
    members = torch.arange(200) % 4
    return centres[members] + noise * torch.randn(200, width, generator=generator), centres, members


def test_kmeans_finds_the_clusters_and_fires_on_their_tokens_alone():
    activations, centres, members = clusters()
    result = factorize(activations, FitConfig(method="kmeans", rank=4))
    match = match_features(result.dictionary, centres)
    assert match.cosine.min() > 0.999
    for own, other in zip(match.own, match.other, strict=True):
        assert torch.equal(result.coefficients[:, own] > 0, members == other)
    brute = torch.stack(
        [
            result.dictionary[result.coefficients[i].argmax()] @ activations[i]
            for i in range(len(activations))
        ]
    )
    torch.testing.assert_close(result.coefficients.max(dim=1).values, brute)
    assert result.l0 == 1
    assert result.is_converged and result.n_iter >= 1


def test_a_token_against_its_centroid_does_not_fire():
    activations = torch.tensor([[1.0, 0.0], [-0.2, 0.0], [0.0, 5.0], [0.0, 5.2]])
    result = factorize(activations, FitConfig(method="kmeans", rank=2))
    assert result.coefficients[1].max() == 0
    assert (result.coefficients[2:].max(dim=1).values > 4.9).all()


def test_kmeans_that_has_not_come_to_rest_says_so():
    generator = torch.Generator().manual_seed(0)
    activations = torch.randn(400, 10, generator=generator)
    result = factorize(activations, FitConfig(method="kmeans", rank=20, max_iter=1))
    assert not result.is_converged
    assert result.stop_reason == "max_iter reached"


def test_kmeans_of_more_clusters_than_distinct_tokens_is_refused():
    activations = torch.eye(3).repeat(5, 1)
    with pytest.raises(FactorizationError, match=r"found 3 clusters.*lower the rank"):
        factorize(activations, FitConfig(method="kmeans", rank=4))


def test_nmf_recovers_non_negative_parts():
    generator = torch.Generator().manual_seed(0)
    parts = torch.zeros(4, 24)
    for i in range(4):
        parts[i, 6 * i : 6 * i + 6] = 0.5 + torch.rand(6, generator=generator)
    codes = torch.rand(300, 4, generator=generator)
    codes *= torch.rand(300, 4, generator=generator) < 0.4
    result = factorize(codes @ parts, FitConfig(method="nmf", rank=4, max_iter=1000))
    assert match_features(result.dictionary, parts).cosine.min() > 0.999
    assert result.explained_variance > 0.999
    assert (result.dictionary >= 0).all()


def test_nmf_sees_the_positive_parts_only():
    generator = torch.Generator().manual_seed(1)
    activations = torch.randn(200, 12, generator=generator)
    fit = FitConfig(method="nmf", rank=5)
    whole, positive = factorize(activations, fit), factorize(activations.clamp(min=0), fit)
    assert torch.equal(whole.dictionary, positive.dictionary)
    assert torch.equal(whole.coefficients, positive.coefficients)
    # ... but is measured on all of A.
    assert whole.explained_variance < positive.explained_variance


def test_nmf_of_a_rank_above_the_width_starts_at_random():
    generator = torch.Generator().manual_seed(1)
    activations = torch.rand(200, 3, generator=generator)
    first, other = (
        factorize(activations, FitConfig(method="nmf", rank=6), seed=seed) for seed in (0, 1)
    )
    assert not torch.allclose(first.dictionary, other.dictionary)
    assert first.explained_variance > 0.99


def test_neurons_are_the_strongest_axes_with_their_signs():
    activations = torch.tensor([[3.0, -5.0, 0.5], [2.0, 1.0, -0.1], [0.0, -4.0, 0.2]])
    result = factorize(activations, FitConfig(method="neurons", rank=3))
    # Energies: +0: 13, +1: 1, +2: 0.29, -1: 41, -2: 0.01.
    assert result.feature_names == ["neuron 1 -", "neuron 0 +", "neuron 1 +"]
    expected = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert torch.equal(result.dictionary, expected)
    assert torch.equal(
        result.coefficients, torch.tensor([[5.0, 3.0, 0.0], [0.0, 2.0, 1.0], [4.0, 0.0, 0.0]])
    )


def test_all_neurons_with_both_signs_explain_everything():
    generator = torch.Generator().manual_seed(1)
    activations = torch.randn(20, 7, generator=generator)
    result = factorize(activations, FitConfig(method="neurons", rank=14))
    torch.testing.assert_close(result.coefficients @ result.dictionary, activations)
    assert result.explained_variance == pytest.approx(1)
    with pytest.raises(FactorizationError, match="a site of 7 neurons has 14 pairs"):
        factorize(activations, FitConfig(method="neurons", rank=15))


def test_more_neurons_never_explain_less():
    generator = torch.Generator().manual_seed(1)
    activations = torch.randn(50, 9, generator=generator)
    explained = [
        factorize(activations, FitConfig(method="neurons", rank=rank)).explained_variance
        for rank in range(1, 19)
    ]
    assert all(later > earlier for earlier, later in pairwise(explained))
