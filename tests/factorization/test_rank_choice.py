"""`rank: auto` finds planted ranks; stability says which features other seeds find."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from assets.factorization.comparison_tables import FEATURE_STABILITY, RANK_CHOICES
from assets.factorization.config import FitConfig
from assets.factorization.half_fits import distinct_rows, halved_documents
from assets.factorization.inputs import FactorizationError
from assets.factorization.rank_choice import (
    Candidate,
    choose_rank,
    default_candidates,
    distances_of,
    overfitting,
)
from assets.factorization.snmf_method import snmf_estimator
from assets.factorization.stability import seed_stability

PARTITION = {"site": "demo:model@L1.mlp_hidden", "fit": "snmf-kauto"}


def auto(planted, candidates, **more):
    return FitConfig(
        rank="auto",
        rank_candidates=candidates,
        keep_fraction=planted.keep_fraction,
        max_iter=60,
        **more,
    )


def documents(n_tokens, length=10):
    return np.arange(n_tokens) // length


@pytest.mark.parametrize(
    ("plant", "candidates"),
    [
        ({"n_features": 5}, (2, 3, 5, 8, 12)),
        ({"n_features": 10}, (4, 7, 10, 14, 20)),
        ({"n_features": 10, "noise": 0.1}, (4, 7, 10, 14, 20)),
        ({"n_features": 10, "active": 0.05, "n_tokens": 1200}, (4, 7, 10, 14, 20)),
        ({"n_features": 10, "active": 0.4, "n_tokens": 1200}, (4, 7, 10, 14, 20)),
        ({"n_features": 20, "active": 0.1, "n_tokens": 1200}, (5, 10, 20, 40)),
    ],
)
def test_a_planted_rank_among_the_candidates_is_chosen(planted, plant, candidates):
    data = planted(**plant)
    choice = choose_rank(data.activations, documents(len(data.activations)), auto(data, candidates))
    assert choice.rank == plant["n_features"], choice.reason


@pytest.mark.parametrize(("n_features", "nearest"), [(10, 8), (14, 16), (6, 8)])
def test_else_the_nearest_is_chosen(planted, n_features, nearest):
    data = planted(n_features=n_features, n_tokens=800)
    choice = choose_rank(data.activations, documents(800), auto(data, (4, 8, 16, 32)))
    assert choice.rank == nearest, choice.reason


def test_rows_say_what_each_candidate_showed(planted):
    data = planted(n_features=6, n_tokens=300)
    fit = auto(data, (3, 6, 200), rank_seeds=2)
    calls = []
    choice = choose_rank(
        data.activations, documents(300), fit, on_fit=lambda *state: calls.append(state)
    )
    frame = RANK_CHOICES.conform(choice.frame(), PARTITION)
    assert frame["rank"].to_list() == [3, 6, 200]
    assert frame.filter(pl_chosen := frame["is_chosen"])["rank"].to_list() == [6]
    assert pl_chosen.sum() == 1
    failed = frame.row(2, named=True)
    # Half of the tokens are fewer than the rank.
    assert failed["status"] == "failed" and "rank 200 exceeds" in failed["reason"]
    assert failed["stability"] is None and failed["distance"] is None
    planted_rank, below = frame.row(1, named=True), frame.row(0, named=True)
    assert planted_rank["stability"] > below["stability"]
    assert planted_rank["held_out_explained_variance"] > below["held_out_explained_variance"]
    assert below["match_next_rank"] is not None and planted_rank["match_next_rank"] is None
    assert calls[-1] == (12, 12)


def test_the_choice_is_the_same_again_and_massive_tokens_take_no_part(planted):
    data = planted(n_features=5, n_tokens=300)
    fit = auto(data, (3, 5, 8), rank_seeds=1)
    first = choose_rank(data.activations, documents(300), fit)
    assert choose_rank(data.activations, documents(300), fit).frame().equals(first.frame())
    is_massive = torch.zeros(310, dtype=torch.bool)
    is_massive[300:] = True
    with_sinks = torch.cat([data.activations, 1e4 * torch.ones(10, data.activations.shape[1])])
    again = choose_rank(with_sinks, documents(310), fit, is_massive=is_massive)
    assert again.frame().equals(first.frame())


def test_noise_without_features_gives_the_smallest_rank():
    noise = torch.randn(400, 100, generator=torch.Generator().manual_seed(0))
    fit = FitConfig(
        rank="auto", rank_candidates=(4, 8, 16), keep_fraction=0.05, max_iter=20, rank_seeds=1
    )
    choice = choose_rank(noise, documents(400), fit)
    assert choice.rank == 4
    assert "no feature was found in both halves" in choice.reason


def test_one_document_cannot_be_halved(planted):
    data = planted(n_features=4, n_tokens=100)
    with pytest.raises(FactorizationError, match="halves the documents, and 1 found"):
        choose_rank(data.activations, np.zeros(100, dtype=int), auto(data, (2, 4)))
    with pytest.raises(FactorizationError, match="no candidate admits a fit: rank 90"):
        choose_rank(data.activations, documents(100), auto(data, (90,)))


def test_documents_are_halved_as_a_whole():
    groups = np.repeat(np.arange(7), [3, 1, 4, 1, 5, 9, 2])
    in_first = halved_documents(groups, seed=3)
    for group in range(7):
        assert len(set(in_first[groups == group])) == 1
    assert sum(in_first[groups == group][0] for group in range(7)) == 3
    assert not np.array_equal(in_first, halved_documents(groups, seed=4))


def test_near_duplicates_count_once_and_the_strongest_stays():
    rows = torch.tensor([[1.0, 0, 0], [0.99, 0.1, 0], [-1.0, 0, 0], [0, 0, 1.0]])
    kept = distinct_rows(rows, torch.tensor([1.0, 2.0, 3.0, 0.0]), 0.7)
    # Strongest first: the opposite direction, then the near-duplicate; one never fires.
    assert torch.allclose(kept[0], rows[2].double())
    assert kept.shape == (2, 3) and kept[1, 1] > 0


def test_a_rank_that_explains_unseen_tokens_worse_is_not_chosen():
    candidates = [
        Candidate(8, [0.5, 0.5], 0.9, 8.0, None),
        Candidate(16, [0.4, 0.4], 0.9, 16.0, None),
        Candidate(32, [], None, None, None, "too few tokens"),
    ]
    assert overfitting(candidates) == [False, True, False]
    assert distances_of(candidates, [False, True, False]) == [0.0, None, None]
    assert distances_of(candidates, [False, False, False]) == [1.0, 0.0, None]


def test_default_candidates_are_bounded_by_the_tokens():
    assert default_candidates(100) == (8,)
    assert default_candidates(14_000) == (8, 16, 32, 64, 128, 256)
    assert default_candidates(1_000) == (8, 16, 32)


def test_stability_tells_planted_features_from_surplus_ones(planted):
    data = planted(n_features=6, n_tokens=600, noise=0.05)
    fit = FitConfig(
        rank=10, keep_fraction=data.keep_fraction, max_iter=60, stability_seeds=2, seed=3
    )
    dictionary = snmf_estimator(fit, 10, 3).fit(data.activations).components_
    found = seed_stability(data.activations, fit, dictionary)
    assert found.cosines.shape == (2, 10)
    nearest = (dictionary @ data.dictionary.t()).max(dim=0)
    is_planted = np.zeros(10, dtype=bool)
    is_planted[nearest.indices.numpy()] = True
    means = found.cosines.mean(axis=0)
    assert means[is_planted].mean() > 0.9 > means[~is_planted].mean()
    frame = FEATURE_STABILITY.conform(found.frame(range(5, 15)), PARTITION)
    assert frame["feature_id"].to_list() == list(range(5, 15))
    assert (frame["min_cosine"] <= frame["mean_cosine"]).all()
    none = seed_stability(
        data.activations, fit.model_copy(update={"stability_seeds": 0}), dictionary
    )
    assert none.mean is None and none.frame(range(10)).is_empty()
