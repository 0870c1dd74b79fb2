"""Recursive SNMF: a planted tree is found, and its permuted null is not."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from sklearn.metrics import adjusted_rand_score

from assets.hierarchy.config import HierarchyConfig
from assets.hierarchy.recursive import parent_keep_fraction, recursive_snmf
from tests.hierarchy.planted_trees import (
    N_GRANDPARENTS,
    N_PARENTS,
    WIDTH,
    permuted,
    planted_tree,
)


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


def test_too_few_features_have_no_levels():
    assert recursive_snmf(torch.eye(3), HierarchyConfig()) == []


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
