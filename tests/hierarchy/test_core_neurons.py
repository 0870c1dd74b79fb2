"""Core and exclusive neurons of planted members, and groups with one feature a concept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from assets.hierarchy.config import HierarchyConfig
from assets.hierarchy.core_neurons import (
    core_direction,
    exclusive_directions,
    member_rows,
    neuron_groups_frame,
    neuron_roles,
)
from assets.hierarchy.group_members import concept_groups, group_members_frame, members_of
from assets.hierarchy.group_tables import GROUP_MEMBERS, NEURON_GROUPS

PARTITION = {"site": "demo:model@L1.mlp_hidden", "fit": "snmf-k024"}
# Neuron 0: all; 1: all, one with the other sign; 2: two of three; 3, 4, 5: one each; 6: none.
MEMBERS = torch.tensor(
    [
        [0.5, 0.4, 0.3, 0.2, 0.0, 0.0, 0.0],
        [0.6, 0.3, 0.1, 0.0, -0.2, 0.0, 0.0],
        [0.7, -0.2, 0.0, 0.0, 0.0, 0.9, 0.0],
    ]
)


@pytest.mark.parametrize(
    ("core_share", "core"), [(1.0, [0]), (0.67, [0]), (2 / 3, [0, 1, 2]), (0.01, [0, 1, 2])]
)
def test_core_neurons_are_shared_with_one_sign_by_enough_members(core_share, core):
    roles = neuron_roles(MEMBERS, core_share)
    assert roles.is_core.nonzero().flatten().tolist() == core


def test_exclusive_neurons_are_those_of_one_member_whatever_the_sign():
    roles = neuron_roles(MEMBERS, 1.0)
    assert [row.nonzero().flatten().tolist() for row in roles.is_exclusive] == [[3], [4], [5]]
    assert exclusive_directions(MEMBERS, roles)[1].tolist() == pytest.approx(
        [0, 0, 0, 0, -0.2, 0, 0]
    )


def test_the_core_direction_is_the_members_mean_on_core_neurons():
    found = core_direction(MEMBERS, neuron_roles(MEMBERS, 2 / 3))
    assert found.tolist() == pytest.approx([0.6, 0.5 / 3, 0.4 / 3, 0, 0, 0, 0])


def test_members_keep_their_strongest_neurons():
    rows = member_rows(MEMBERS, [7, 3, 9], [9, 7], 2 / 7)
    assert [row.nonzero().flatten().tolist() for row in rows] == [[0, 5], [0, 1]]
    assert torch.equal(member_rows(MEMBERS, [7, 3, 9], [3], 1.0), MEMBERS[1:2])
    assert member_rows(MEMBERS, [7, 3, 9], [], 0.5).shape == (0, 7)


def test_a_single_member_and_none_have_no_core():
    for rows in (MEMBERS[:1], MEMBERS[:0]):
        assert not core_direction(rows, neuron_roles(rows, 1.0)).any()


def test_no_neuron_is_core_and_exclusive():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(5, 200, generator=generator)
    rows *= torch.rand(5, 200, generator=generator) < 0.3
    for share in (0.01, 0.5, 1.0):
        roles = neuron_roles(rows, share)
        assert not (roles.is_core[None] & roles.is_exclusive).any()
        assert (roles.is_exclusive <= (rows != 0)).all()


def test_neuron_groups_rows_add_up_to_the_directions():
    concepts, ids = ["Mon", "Tue", "Wed"], [9, 4, 30]
    frame = neuron_groups_frame("days", concepts, ids, MEMBERS, 2 / 3)
    frame = NEURON_GROUPS.conform(frame, PARTITION)
    roles = neuron_roles(MEMBERS, 2 / 3)
    core = torch.zeros(7)
    for neuron, weight in frame.filter(role="core").select("neuron", "weight").iter_rows():
        core[neuron] += weight / 3
    torch.testing.assert_close(core, core_direction(MEMBERS, roles))
    exclusive = frame.filter(role="exclusive").select("feature_id", "neuron", "n_users").rows()
    assert exclusive == [(9, 3, 1), (4, 4, 1), (30, 5, 1)]


def test_members_without_common_neurons_have_exclusive_rows_only():
    frame = neuron_groups_frame("g", ["a", "b"], [0, 1], torch.eye(2), 1.0)
    assert frame["role"].to_list() == ["exclusive", "exclusive"]
    assert neuron_groups_frame("g", [], [], torch.zeros(0, 3), 1.0).is_empty()


PARENT_OF = {"Mon": "days", "Tue": "days", "red": "colours", "blue": "colours", "sun": None}


def test_named_groups_come_first_and_parent_concepts_follow():
    groups = concept_groups({"days": (), "mixed": ("Mon", "red")}, PARENT_OF)
    assert [(g.name, g.concepts, g.is_steered) for g in groups] == [
        ("days", ("Mon", "Tue"), True),
        ("mixed", ("Mon", "red"), True),
        ("colours", ("blue", "red"), False),
    ]
    assert concept_groups({}, {"one": "alone"}) == []


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"days": ("Mon",)}, "expected two or more"),
        ({"weeks": ()}, "an empty list for a parent concept: colours, days"),
    ],
)
def test_a_group_that_cannot_be_is_named_with_what_there_is(named, message):
    with pytest.raises(ValueError, match=message):
        concept_groups(named, PARENT_OF)


def ids_of(concepts):
    return [f"document {i}" for i in range(len(concepts))]


def planted_scores(seed=0, n_each=8):
    """Features 0, 1, 2 score Mon, Tue, red; feature 3 scores Mon a little less well, 4 is zero."""
    concepts = [c for c in ("Mon", "Tue", "red") for _ in range(n_each)]
    scores = 0.1 * np.random.default_rng(seed).random((len(concepts), 5))
    for column, concept in ((0, "Mon"), (1, "Tue"), (2, "red")):
        scores[np.array(concepts) == concept, column] += 0.5
    scores[:7, 3] += 0.5
    scores[:, 4] = np.nan
    return scores, concepts


def test_each_concept_gets_a_feature_of_its_own_measured_on_the_other_half():
    scores, concepts = planted_scores()
    groups = concept_groups({"all": ("Mon", "Tue", "red")}, dict.fromkeys(concepts))
    frame = group_members_frame(
        groups, scores, ids_of(concepts), concepts, [10, 20, 30, 40, 50], seed=0
    )
    frame = GROUP_MEMBERS.conform(frame, PARTITION)
    assert dict(frame.select("concept", "feature_id").iter_rows()) == {
        "Mon": 10,
        "Tue": 20,
        "red": 30,
    }
    assert frame["auroc"].to_list() == [1.0, 1.0, 1.0]
    assert members_of(frame, "all") == (["Mon", "Tue", "red"], [10, 20, 30])


def test_two_concepts_of_one_feature_are_told_apart():
    """Feature 0 is the best of both; the assignment gives the second best where it costs least."""
    scores, concepts = planted_scores()
    scores[:, 1] = scores[:, 0]
    groups = concept_groups({"all": ("Mon", "Tue", "red")}, dict.fromkeys(concepts))
    frame = group_members_frame(groups, scores, ids_of(concepts), concepts, range(5), seed=0)
    assert frame["feature_id"].n_unique() == 3


def test_scores_of_noise_are_not_reported_as_the_luckiest():
    rng = np.random.default_rng(3)
    concepts = [f"c{i % 4}" for i in range(80)]
    groups = concept_groups({"all": ("c0", "c1", "c2", "c3")}, dict.fromkeys(concepts))
    frame = group_members_frame(
        groups, rng.random((80, 60)), ids_of(concepts), concepts, range(60), seed=0
    )
    assert frame["auroc_chosen"].min() > 0.65
    assert 0.35 < frame["auroc"].mean() < 0.62


def test_concepts_without_documents_to_choose_on_or_features_left_say_so():
    scores, concepts = planted_scores()
    concepts = [*concepts[:-1], "lone"]
    groups = concept_groups({"all": ("Mon", "Tue", "lone")}, dict.fromkeys(concepts))
    frame = GROUP_MEMBERS.conform(
        group_members_frame(groups, scores, ids_of(concepts), concepts, range(5), seed=0), PARTITION
    )
    failed = frame.filter(status="failed")
    assert failed["concept"].to_list() == ["lone"]
    assert "half that chooses" in failed["reason"].item()
    few = group_members_frame(groups, scores[:, [0, 4]], ids_of(concepts), concepts, [7, 8], seed=0)
    assert few.filter(status="ok")["feature_id"].to_list() == [7]
    assert few.filter(concept="Tue")["reason"].item().endswith("that are not zero (1)")
    absent = concept_groups({"all": ("Mon", "Sat")}, dict.fromkeys(concepts))
    rows = group_members_frame(absent, scores, ids_of(concepts), concepts, range(5), seed=0)
    assert rows["status"].to_list() == ["ok", "failed"]
    nothing = group_members_frame(groups, scores[:, [4]], ids_of(concepts), concepts, [8], seed=0)
    assert nothing["status"].unique().to_list() == ["failed"]


def test_no_groups_give_no_rows():
    frame = group_members_frame([], np.zeros((3, 2)), ["a", "b", "c"], [None] * 3, [0, 1], seed=0)
    assert GROUP_MEMBERS.conform(frame, PARTITION).is_empty()


def test_a_concept_listed_twice_in_a_group_is_an_error_that_names_it():
    with pytest.raises(ValidationError, match=r"groups\.days lists 'Mon' more than once"):
        HierarchyConfig(groups={"colours": ["red", "blue"], "days": ["Mon", "Mon", "Tue"]})


def test_config_of_groups_is_checked():
    assert HierarchyConfig(groups={"days": ["Mon", "Tue"]}).groups == {"days": ("Mon", "Tue")}
    for wrong in ({"core_share": 0}, {"n_null_draws": -1}, {"group_target_kl_nats": 0}):
        with pytest.raises(ValidationError):
            HierarchyConfig(**wrong)
