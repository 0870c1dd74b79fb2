"""Recursive SNMF: a planted tree is found, and its permuted null is not."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from sklearn.metrics import adjusted_rand_score

from assets.hierarchy.config import HierarchyConfig
from assets.hierarchy.recursive import (
    HierarchyLevel,
    edges_frame,
    parent_keep_fraction,
    recursive_snmf,
)
from assets.hierarchy.tables import FEATURE_EDGES

PARTITION = {"site": "demo:model@L1.mlp_hidden", "fit": "snmf-k024"}
N_GRANDPARENTS, N_PARENTS, N_CHILDREN, WIDTH = 3, 6, 24, 400


def planted_tree(seed=0):
    """Children with neurons of their own, of their parent, and of their grandparent."""
    generator = torch.Generator().manual_seed(seed)
    neurons = torch.randperm(WIDTH, generator=generator)
    grandparents, rest = neurons[:15].view(3, 5), neurons[15:]
    parents, own = rest[:30].view(6, 5), rest[30 : 30 + 48].view(24, 2)
    dictionary = torch.zeros(N_CHILDREN, WIDTH)
    parent_of = torch.arange(N_CHILDREN) // 4
    signs = torch.randn(WIDTH, generator=generator).sign()
    for child, parent in enumerate(parent_of.tolist()):
        dictionary[child, grandparents[parent // 2]] = 0.5
        dictionary[child, parents[parent]] = 1.0
        dictionary[child, own[child]] = 0.4
    dictionary *= signs * (0.9 + 0.2 * torch.rand(WIDTH, generator=generator))
    return torch.nn.functional.normalize(dictionary, dim=1), parent_of


def permuted(dictionary, seed=0):
    order = torch.rand(dictionary.shape, generator=torch.Generator().manual_seed(seed)).argsort(1)
    return dictionary.gather(1, order)


def strongest_parents(level):
    return level.weights.argmax(dim=1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_planted_tree_is_recovered_and_its_permuted_null_is_not(seed):
    dictionary, parent_of = planted_tree(seed)
    config = HierarchyConfig(ranks=(N_PARENTS, N_GRANDPARENTS), seed=seed)
    levels = recursive_snmf(dictionary, config)
    found = strongest_parents(levels[0])
    assert adjusted_rand_score(parent_of, found) > 0.99
    grandparents = strongest_parents(levels[1])[found]
    assert adjusted_rand_score(parent_of // 2, grandparents) > 0.99
    null = recursive_snmf(permuted(dictionary, seed), config)
    assert adjusted_rand_score(parent_of, strongest_parents(null[0])) < 0.4
    assert null[0].explained_variance < levels[0].explained_variance - 0.2


def test_levels_keep_non_negativity_sparsity_and_unit_rows():
    dictionary, _ = planted_tree()
    levels = recursive_snmf(dictionary, HierarchyConfig())
    assert [tuple(level.weights.shape) for level in levels] == [(24, 12), (12, 6)]
    for level in levels:
        assert (level.weights >= 0).all()
        allowed = round(level.keep_fraction * WIDTH)
        assert ((level.dictionary != 0).sum(dim=1) <= allowed).all()
        torch.testing.assert_close(
            level.dictionary.norm(dim=1), torch.ones(level.dictionary.shape[0])
        )
        assert level.stop_reason


def test_a_parent_may_use_the_union_of_its_childrens_neurons():
    dictionary, _ = planted_tree()  # 12 neurons a child
    assert parent_keep_fraction(dictionary, 12) == pytest.approx(24 / WIDTH)
    assert parent_keep_fraction(dictionary, 6) == pytest.approx(48 / WIDTH)
    assert parent_keep_fraction(torch.ones(10, 8), 5) == 1.0


def test_edges_are_those_from_the_threshold_on():
    weights = torch.tensor([[1.0, 0.15, 0.14], [0.0, 0.0, 0.0], [0.2, 0.0, 0.9]])
    level = HierarchyLevel(
        level=2,
        weights=weights,
        dictionary=torch.eye(3),
        keep_fraction=1.0,
        explained_variance=None,
        n_iter=1,
        is_converged=True,
        stop_reason="given",
    )
    frame = FEATURE_EDGES.conform(edges_frame([level], 0.15), PARTITION)
    edges = frame.select("level", "child_id", "parent_id", "weight").rows()
    assert edges == [
        (2, 0, 0, 1.0),
        (2, 0, 1, pytest.approx(0.15)),
        (2, 2, 0, pytest.approx(0.2)),
        (2, 2, 2, pytest.approx(0.9)),
    ]
    all_edges = edges_frame([level], 0.0)
    assert len(all_edges) == 5


def test_edges_of_a_fit_conform():
    dictionary, _ = planted_tree()
    levels = recursive_snmf(dictionary, HierarchyConfig())
    frame = FEATURE_EDGES.conform(edges_frame(levels, 0.15), PARTITION)
    assert set(frame["level"].unique()) == {0, 1}
    assert frame.filter(level=0)["child_id"].max() < 24
    assert frame.filter(level=1)["child_id"].max() < 12
    again = edges_frame(recursive_snmf(dictionary, HierarchyConfig()), 0.15)
    assert again.equals(frame.drop("site", "fit"))


def test_too_few_features_have_no_levels():
    assert recursive_snmf(torch.eye(3), HierarchyConfig()) == []
    empty = edges_frame([], 0.15)
    assert empty.is_empty()
    assert FEATURE_EDGES.conform(empty, PARTITION).is_empty()


def test_automatic_ranks_halve_twice():
    assert HierarchyConfig().ranks_for(64) == (32, 16)
    assert HierarchyConfig().ranks_for(25) == (12, 6)
    assert HierarchyConfig().ranks_for(5) == (2,)


def test_ranks_must_fall_below_the_features():
    with pytest.raises(ValueError, match="hierarchy rank 30 found for 24 features"):
        recursive_snmf(planted_tree()[0], HierarchyConfig(ranks=(30, 3)))
    for ranks in ((4, 8), (8, 8), (4, 0), ()):
        with pytest.raises(ValidationError, match="expected falling numbers"):
            HierarchyConfig(ranks=ranks)
    with pytest.raises(ValidationError):
        HierarchyConfig(threshold=0.1)
