"""The tree's rows: edges and parents that make the children, levels beside their nulls."""

from __future__ import annotations

import polars as pl
import pytest
import torch

from assets.factorization.sparse_rows import unit_rows
from assets.hierarchy.config import HierarchyConfig
from assets.hierarchy.recursive import HierarchyLevel
from assets.hierarchy.tables import FEATURE_EDGES, HIERARCHY_LEVELS, PARENT_FEATURES
from assets.hierarchy.tree_frames import (
    children_explained,
    edge_concentration,
    edges_frame,
    parents_frame,
    stored_levels,
)
from assets.hierarchy.tree_study import study_tree
from tests.hierarchy.planted_trees import WIDTH, activations_of, planted_tree

PARTITION = {"site": "demo:model@L1.mlp_hidden", "fit": "snmf-k024"}
CONFIG = HierarchyConfig(ranks=(6, 3), n_starts=3, fine_tune_max_iter=20, n_permutations=2)
FEATURE_IDS = [3 * i + 5 for i in range(24)]


@pytest.fixture(scope="module")
def study():
    dictionary, _ = planted_tree()
    activations = activations_of(dictionary, noise=0.3)
    return study_tree(dictionary, lambda: activations, CONFIG, penalty=0.03)


def level_of(weights, dictionary, level=0):
    return HierarchyLevel(level, weights, dictionary, 1.0, None, 1, True, "given")


def test_edges_are_those_from_the_threshold_on_with_real_feature_ids():
    weights = torch.tensor([[1.0, 0.15, 0.14], [0.0, 0.0, 0.0], [0.2, 0.0, 0.9]])
    stored = stored_levels([level_of(weights, torch.eye(3))], None)
    frame = FEATURE_EDGES.conform(edges_frame(stored, 0.15, [4, 7, 11]), PARTITION)
    first, last = (weights[0].norm(), weights[2].norm())
    assert frame.select("level", "child_id", "parent_id", "weight").rows() == [
        (0, 4, 0, pytest.approx(1.0 / float(first))),
        (0, 4, 1, pytest.approx(0.15 / float(first))),
        (0, 11, 0, pytest.approx(0.2 / float(last))),
        (0, 11, 2, pytest.approx(0.9 / float(last))),
    ]
    assert frame["weight"].equals(frame["weight_before"].alias("weight"))
    assert len(edges_frame(stored, 0.0, [4, 7, 11])) == 5


def test_ids_of_upper_levels_are_row_numbers():
    level = level_of(torch.eye(3), torch.eye(3), level=1)
    frame = edges_frame(stored_levels([level], None), 0.15, [4, 7, 11])
    assert frame["child_id"].to_list() == [0, 1, 2]


def test_stored_weights_times_stored_parents_are_the_unit_children_of_the_tuned_tree(study):
    stored = stored_levels(study.levels, study.tuning.after.tree)
    edges = edges_frame(stored, 0.0, FEATURE_IDS)
    parents = parents_frame(stored)
    FEATURE_EDGES.conform(edges, PARTITION)
    PARENT_FEATURES.conform(parents, PARTITION)
    for level in (0, 1):
        rows = torch.zeros(len(study.levels[level].dictionary), WIDTH)
        for parent, neuron, weight in (
            parents.filter(level=level).select("parent_id", "neuron", "weight").iter_rows()
        ):
            rows[parent, neuron] = weight
        names = FEATURE_IDS if level == 0 else range(6)
        weights = torch.zeros(len(names), len(rows))
        for child, parent, weight in (
            edges.filter(level=level).select("child_id", "parent_id", "weight").iter_rows()
        ):
            weights[list(names).index(child), parent] = weight
        expected = unit_rows(study.tuning.after.tree.rows_of_level(level))
        torch.testing.assert_close(weights @ rows, expected, atol=1e-5, rtol=1e-4)


def test_levels_say_what_tuning_brought_beside_permuted_trees(study):
    frame = HIERARCHY_LEVELS.conform(study.rows, PARTITION)
    assert frame.select("level", "permutation").rows() == [
        (level, permutation) for permutation in range(3) for level in range(2)
    ]
    own, null = frame.filter(~pl.col("is_null")), frame.filter("is_null")
    lowest, null_lowest = own.filter(level=0), null.filter(level=0)
    share = "children_explained_variance"
    assert lowest[share].item() > null_lowest[share].max() + 0.2
    top = own.filter(level=1)
    assert top["explained_variance_tuned"].item() > top["explained_variance"].item()
    assert own["explained_variance_tuned"].n_unique() == 1, "one tree, one number"
    assert (own["tuning_objective_after"] < own["tuning_objective_before"]).all()
    assert own.filter(level=1)["children_explained_variance_tuned"].item() == pytest.approx(1.0)
    assert own["explained_variance"].is_sorted(descending=True), "each level explains less"
    assert null["explained_variance"].null_count() == len(null)
    assert null["seed"].n_unique() == 2
    assert null["n_tokens_used"].null_count() == null["n_tokens"].null_count() == len(null)
    assert own["n_tokens_used"].equals(own["n_tokens"].alias("n_tokens_used")), "no sample"
    assert "children_explained_variance" in study.as_markdown()


def test_explained_variance_through_a_level_is_that_of_the_best_coefficients():
    """Control: a dictionary that is its own tree explains noiseless activations wholly."""
    dictionary, _ = planted_tree()
    flat = HierarchyConfig(
        ranks=(23,), fine_tune=False, n_permutations=0, coefficient_penalty=0, n_starts=1
    )
    rows = study_tree(dictionary, lambda: activations_of(dictionary), flat, penalty=0.0).rows
    assert rows["explained_variance"].item() > 0.97
    assert rows["explained_variance_tuned"].null_count() == 1
    assert rows["tuning_stop_reason"].item() == "fine_tune is off"


def test_a_sample_says_how_many_tokens_of_how_many():
    dictionary, _ = planted_tree()
    activations = activations_of(dictionary)
    config = HierarchyConfig(ranks=(6,), n_starts=1, n_permutations=0, fine_tune=False)
    rows = study_tree(
        dictionary, lambda: activations[:50], config, penalty=0.0, n_tokens=len(activations)
    ).rows
    assert rows.select("n_tokens_used", "n_tokens").rows() == [(50, len(activations))]


def test_an_offset_is_taken_off_first():
    dictionary, _ = planted_tree()
    matrix = activations_of(dictionary)
    offset = torch.linspace(-1, 1, WIDTH)
    config = HierarchyConfig(ranks=(6,), n_starts=1, n_permutations=0, fine_tune=False)
    plain = study_tree(dictionary, lambda: matrix, config, penalty=0.0)
    moved = study_tree(
        dictionary, lambda: matrix + offset, config, penalty=0.0, offset=offset.tolist()
    )
    assert moved.rows["explained_variance"].item() == pytest.approx(
        plain.rows["explained_variance"].item(), abs=1e-4
    )


def test_the_same_input_gives_the_same_rows(study):
    dictionary, _ = planted_tree()
    activations = activations_of(dictionary, noise=0.3)
    again = study_tree(dictionary, lambda: activations, CONFIG, penalty=0.03)
    assert again.rows.equals(study.rows)


def test_too_few_features_have_no_rows_and_read_no_activations():
    def read():
        raise AssertionError("activations were read")

    study = study_tree(torch.eye(3), read, HierarchyConfig(), penalty=0.0)
    assert study.levels == [] and study.tuning is None
    stored = stored_levels([], None)
    for frame, table in (
        (study.rows, HIERARCHY_LEVELS),
        (edges_frame(stored, 0.15, [0, 1, 2]), FEATURE_EDGES),
        (parents_frame(stored), PARENT_FEATURES),
    ):
        assert table.conform(frame, PARTITION).is_empty()


def test_children_explained_is_the_squared_cosine():
    children = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    weights, parents = torch.ones(4, 1), torch.tensor([[1.0, 0.0]])
    # Half, whole, left out, and pointing away.
    assert children_explained(children, weights, parents) == pytest.approx((0.5 + 1 + 0) / 3)
    assert children_explained(torch.zeros(2, 2), torch.ones(2, 1), parents) is None


def test_edge_concentration_is_one_for_a_clean_tree():
    assert edge_concentration(torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 0.1]])) == 1.0
    assert edge_concentration(torch.ones(3, 4)) == pytest.approx(0.25)
    assert edge_concentration(torch.zeros(2, 2)) is None
