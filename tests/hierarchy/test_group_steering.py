"""Steering by a group's neurons: planted tokens rise, rows say what was not measured and why."""

from __future__ import annotations

import polars as pl
import pytest
import torch

from assets.activations.hooks import add_at_site
from assets.activations.sites import ActivationSite
from assets.activations.suffix_forward import SuffixForward
from assets.hierarchy.group_steering import (
    Intervention,
    MeasuredToken,
    measured_tokens,
    plan_interventions,
    steer_groups,
    token_gains,
)
from assets.hierarchy.group_summary import group_metadata, member_effects, n_own_highest
from assets.hierarchy.group_tables import GROUP_STEERING
from tests.activations.tiny_models import tiny_model, word_tokenizer

PARTITION = {"site": "demo:model@L1.mlp_hidden", "fit": "snmf-k024"}
SITE = ActivationSite(1)
PROMPTS = [[5, 9, 12], [7, 8, 30], [11, 20]]
SEARCH = {"target_kl_nats": 0.1, "tolerance": 0.05, "max_evaluations": 48}
WIDTH = 40


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama")


def members(seed=0):
    """Three rows with two common neurons and three of their own each."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.zeros(3, WIDTH)
    rows[:, :2] = 0.5
    for row in range(3):
        rows[row, 10 + 3 * row : 13 + 3 * row] = torch.randn(3, generator=generator)
    return torch.nn.functional.normalize(rows, dim=1)


def tokens_of(concepts, ids):
    return [MeasuredToken(c, i, c) for c, i in zip(concepts, ids, strict=True)]


def steer(model, interventions, tokens, **changes):
    options = {**SEARCH, "max_strength_ratio": 100.0, **changes}
    frame = steer_groups(
        model, SITE, interventions, tokens, {"g": ("a", "b", "c")}, PROMPTS, **options
    )
    return GROUP_STEERING.conform(frame, PARTITION)


def test_a_plan_has_core_exclusive_and_their_nulls_with_the_same_weights():
    plan = plan_interventions(
        "g", ["a", "b", "c"], members(), core_share=1.0, n_null_draws=2, seed=5
    )
    assert [(p.intervention, p.steered, p.draw, p.seed) for p in plan[:5]] == [
        ("core", "g", 0, None),
        ("exclusive", "a", 0, None),
        ("exclusive", "b", 0, None),
        ("exclusive", "c", 0, None),
        ("null_core", "g", 1, 6),
    ]
    assert len(plan) == 4 * 3
    assert [p.n_neurons for p in plan] == [2, 3, 3, 3] * 3
    for real, null in zip(plan[:4], plan[4:8], strict=True):
        assert real.direction.norm() == pytest.approx(1.0)
        assert null.direction.sort().values.tolist() == real.direction.sort().values.tolist()
        assert not torch.equal(null.direction, real.direction)
    again = plan_interventions(
        "g", ["a", "b", "c"], members(), core_share=1.0, n_null_draws=2, seed=5
    )
    assert all(torch.equal(p.direction, q.direction) for p, q in zip(plan, again, strict=True))


def test_token_gains_are_those_of_full_forwards_and_none_at_strength_0(model):
    vectors = torch.stack([torch.zeros(WIDTH), 3 * members()[0], -2 * members()[1]])
    ids = [6, 17, 40]
    gains, base = token_gains(SuffixForward(model, SITE, PROMPTS), vectors, ids)
    assert gains[0].abs().max() < 1e-4
    for row, vector in enumerate(vectors):
        for column, prompt in enumerate(PROMPTS):
            inputs = torch.tensor([prompt])
            with torch.no_grad():
                unsteered = model(inputs).logits[0, -1].log_softmax(-1)[ids]
                with add_at_site(model, SITE, vector):
                    steered = model(inputs).logits[0, -1].log_softmax(-1)[ids]
            torch.testing.assert_close(base[column].float(), unsteered, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(
                gains[row, column].float(), steered - unsteered, atol=2e-4, rtol=1e-3
            )


def direction_that_raises(model, token):
    """The numerical gradient of the token's mean log-probability in what is added at the site."""
    suffix = SuffixForward(model, SITE, PROMPTS)
    gains, _ = token_gains(suffix, 0.05 * torch.eye(WIDTH), [token])
    return torch.nn.functional.normalize(gains.mean(dim=1)[:, 0].float(), dim=0)


def test_directions_that_raise_a_token_are_found_to_raise_it(model):
    """Planted: each member's direction raises its own token; the random null is the control."""
    concepts, ids = ("a", "b", "c"), (6, 17, 40)
    plan = [
        Intervention("g", "exclusive", concept, 0, None, direction_that_raises(model, token), WIDTH)
        for concept, token in zip(concepts, ids, strict=True)
    ]
    frame = steer(model, plan, tokens_of((*concepts, "other"), (*ids, 50)))
    assert frame["status"].unique().to_list() == ["ok"]
    assert ((frame["achieved_kl_nats"] - 0.1).abs() <= 0.0051).all()
    own = frame.filter(pl.col("steered") == pl.col("measured_concept"))
    assert own["delta_logprob"].min() > 0.1
    assert n_own_highest(frame, "g") == (3, 3)
    assert frame.filter(measured_concept="other")["is_member"].any() is False
    effects = member_effects(frame, "g")
    assert effects["measured"].to_list() == ["other members", "outside", "own"]
    assert effects.filter(measured="own")["n_rising"].item() == 3
    shown = group_metadata(frame)
    assert set(shown) == {"effects_g", "members_g"}
    assert "3 of 3 members" in shown["effects_g"] and "image/png" in shown["members_g"]


def test_directions_without_neurons_are_not_attempted_and_the_others_go_on(model):
    rows = torch.eye(3, WIDTH)
    plan = plan_interventions("g", ["a", "b", "c"], rows, core_share=1.0, n_null_draws=1, seed=0)
    frame = steer(model, plan, tokens_of("abc", (6, 17, 40)))
    core = frame.filter(pl.col("intervention").str.ends_with("core"))
    assert core["status"].unique().to_list() == ["not_attempted"]
    assert core["reason"].unique().to_list() == ["the group has no core neurons here"]
    assert core["delta_logprob"].null_count() == len(core) == 6
    assert frame.filter(status="ok").height > 0
    assert "members_g" in group_metadata(frame)
    nothing = steer(model, plan[:1], tokens_of("abc", (6, 17, 40)))
    assert set(group_metadata(nothing)) == {"effects_g"}


def test_a_target_out_of_reach_says_so(model):
    plan = plan_interventions("g", ["a", "b", "c"], members(), core_share=1, n_null_draws=0, seed=0)
    frame = steer(model, plan, tokens_of("abc", (6, 17, 40)), max_strength_ratio=1e-3)
    assert frame["status"].unique().to_list() == ["not_reached"]
    assert frame["reason"].null_count() == 0
    assert frame["delta_logprob"].null_count() == len(frame)
    assert not frame["is_converged"].any()


def test_concepts_that_share_a_first_token_are_not_told_apart(model):
    tokenizer = word_tokenizer(adds_bos=True)
    tokens = measured_tokens(tokenizer, ["w3", "w3 w9", "w7"])
    assert [t.token_id for t in tokens] == [7, 7, 11]
    assert [t.shared_with for t in tokens] == [("w3 w9",), ("w3",), ()]
    plan = plan_interventions("g", ["a", "b", "c"], members(), core_share=1, n_null_draws=0, seed=0)
    frame = steer(model, plan[:1], tokens)
    assert frame["status"].to_list() == ["shared_token", "shared_token", "ok"]
    assert "also that of w3 w9" in frame["reason"][0]
    assert frame["delta_logprob"].is_null().to_list() == [True, True, False]


def test_a_group_without_members_keeps_a_row_that_says_so(model):
    plan = plan_interventions("g", [], torch.zeros(0, WIDTH), core_share=1, n_null_draws=1, seed=0)
    assert [(p.intervention, p.n_neurons) for p in plan] == [("core", 0), ("null_core", 0)]
    frame = steer(model, plan, tokens_of("abc", (6, 17, 40)))
    assert frame["status"].unique().to_list() == ["not_attempted"]


def test_no_interventions_give_no_rows(model):
    assert steer(model, [], tokens_of("abc", (6, 17, 40))).is_empty()
    assert group_metadata(GROUP_STEERING.empty()) == {}


def test_where_a_norm_stands_behind_the_mlp_groups_steer_after_it():
    model = tiny_model("gemma2")
    plan = plan_interventions("g", ["a", "b", "c"], members(), core_share=1, n_null_draws=1, seed=0)
    options = {"target_kl_nats": 0.05, "max_strength_ratio": 1e4}
    frame = steer(model, plan, tokens_of("abc", (6, 17, 40)), **options)
    assert set(frame["steered_at"]) == {"mlp_out"} and set(frame["status"]) == {"ok"}
    layer = model.model.layers[1]
    for planned, row in zip(plan, frame.gather_every(3).iter_rows(named=True), strict=True):
        added = layer.post_feedforward_layernorm(layer.mlp.down_proj(planned.direction))
        added *= row["strength"] / added.norm()
        gains = []
        for prompt in PROMPTS:
            inputs = torch.tensor([prompt])
            base = model(inputs).logits[0, -1].log_softmax(-1)[6]
            hook = layer.post_feedforward_layernorm.register_forward_hook(
                lambda _, __, output, added=added: output + added
            )
            gains.append(float(model(inputs).logits[0, -1].log_softmax(-1)[6] - base))
            hook.remove()
        assert row["delta_logprob"] == pytest.approx(sum(gains) / len(gains), abs=2e-4)
