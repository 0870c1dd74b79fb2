"""Metrics against brute force and against scikit-learn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from assets.factorization.metrics import best_auroc, explained_variance, l0, match_features


def test_matching_is_the_best_of_all_permutations():
    generator = torch.Generator().manual_seed(0)
    left = torch.nn.functional.normalize(torch.randn(5, 9, generator=generator), dim=1)
    right = torch.nn.functional.normalize(torch.randn(5, 9, generator=generator), dim=1)
    cosine = (left @ right.t()).numpy()
    for ignore_sign, value in ((False, cosine), (True, np.abs(cosine))):
        best = max(value[range(5), order].sum() for order in itertools.permutations(range(5)))
        match = match_features(3 * left, right, ignore_sign=ignore_sign)
        total = np.abs(match.cosine).sum() if ignore_sign else match.cosine.sum()
        assert total == pytest.approx(best, rel=1e-5)


def test_matching_undoes_a_permutation_and_keeps_signs():
    rows = torch.randn(6, 20, generator=torch.Generator().manual_seed(1))
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    match = match_features(rows, -rows[order], ignore_sign=True)
    np.testing.assert_array_equal(order[match.other].numpy(), match.own)
    np.testing.assert_allclose(match.cosine, -1, atol=1e-6)


def test_auroc_is_scikit_learns():
    generator = torch.Generator().manual_seed(2)
    documents = ["a", "b", None, "a", "b", None, "a", "b"]
    index = torch.arange(8).repeat_interleave(3)
    coefficients = torch.randn(24, 4, generator=generator).clamp(min=0)  # with ties at zero
    frame = best_auroc(coefficients, index, documents)
    assert frame["concept"].to_list() == ["a", "b"]
    assert frame["n_documents"].to_list() == [3, 3]
    pooled = coefficients.view(8, 3, 4).amax(dim=1).numpy()
    for concept, feature, auroc in frame.select("concept", "feature_id", "auroc").iter_rows():
        member = [d == concept for d in documents]
        each = [roc_auc_score(member, pooled[:, j]) for j in range(4)]
        assert auroc == pytest.approx(max(each))
        assert each[feature] == pytest.approx(max(each))


def test_a_concept_of_all_documents_has_no_auroc():
    assert best_auroc(torch.rand(4, 2), torch.arange(4), ["a"] * 4).is_empty()


def test_explained_variance_and_its_limits():
    activations = 3 + torch.randn(50, 6, generator=torch.Generator().manual_seed(3))
    dictionary = torch.eye(6)
    whole = explained_variance(activations, activations, dictionary)
    assert (whole.uncentred, whole.centred) == pytest.approx((1.0, 1.0))
    nothing = explained_variance(activations, torch.zeros(50, 6), dictionary)
    assert nothing.uncentred == 0
    assert nothing.centred is not None
    assert nothing.centred < 0
    mean_only = explained_variance(
        activations, torch.zeros(50, 6), dictionary, activations.mean(dim=0)
    )
    assert mean_only.centred == pytest.approx(0, abs=1e-6)
    assert explained_variance(torch.zeros(5, 6), torch.zeros(5, 6), dictionary).uncentred is None


def test_l0_counts_per_token():
    assert l0(torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.0, 3.0]])) == 1.5
