"""Calibrated strengths, re-evaluated by plain full forwards and a softmax written out."""

from __future__ import annotations

import polars as pl
import pytest
import torch
from torch import nn

from assets.activations.hooks import add_at_site
from assets.activations.sites import ActivationSite, locate_site
from assets.activations.suffix_forward import SuffixForward
from assets.steering.calibration import CalibrationRun, calibrate_strengths
from assets.steering.next_token_change import median_activation_norm
from assets.steering.tables import CALIBRATIONS
from tests.activations.tiny_models import tiny_model
from tests.steering.mean_kl import mean_kl

PROMPTS = [[5, 9, 33], [4, 17, 50, 8, 30], [7, 7, 12]]
TARGETS = (0.005, 0.02, 0.4)
SITE = ActivationSite(1)


def unit_directions(model: nn.Module, n: int, site: ActivationSite = SITE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    directions = torch.randn(n, locate_site(model, site).width, generator=generator)
    return directions / directions.norm(dim=1, keepdim=True)


def full_probabilities(model: nn.Module, prompt: list[int], vector: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), add_at_site(model, SITE, vector):
        return model(input_ids=torch.tensor([prompt])).logits[0, -1].double().softmax(-1)


def brute_kl(model: nn.Module, vector: torch.Tensor) -> float:
    total = 0.0
    for prompt in PROMPTS:
        base = full_probabilities(model, prompt, 0 * vector)
        steered = full_probabilities(model, prompt, vector)
        total += sum(p * (p / q).log() for p, q in zip(base, steered, strict=True)).item()
    return total / len(PROMPTS)


def calibrate(model: nn.Module, directions: torch.Tensor, **options: object) -> CalibrationRun:
    arguments = {
        "feature_ids": list(range(10, 10 + len(directions))),
        "signs": ["+", "-"],
        "target_kl_nats": TARGETS,
        "prompt_ids": PROMPTS,
        "batch_rows": 16,
    }
    return calibrate_strengths(model, SITE, directions, **(arguments | options))


@pytest.mark.parametrize("architecture", ["gpt2", "gemma2", "opt"])
def test_mean_kl_equals_brute_force(architecture: str) -> None:
    model = tiny_model(architecture)
    vectors = unit_directions(model, 5) * torch.tensor([[0.0], [0.1], [1.0], [5.0], [40.0]])
    suffix = SuffixForward(model, SITE, PROMPTS)
    fast = mean_kl(suffix, vectors, batch_rows=4)
    assert fast == pytest.approx([brute_kl(model, v) for v in vectors], rel=1e-3, abs=2e-6)
    assert fast[0] == pytest.approx(0, abs=2e-6) and fast[4] > fast[1] > 0


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma3"])
def test_calibrated_strengths_meet_their_targets(architecture: str) -> None:
    model = tiny_model(architecture)
    directions = unit_directions(model, 4)
    run = calibrate(model, directions, tolerance=0.05)
    CALIBRATIONS.conform(run.rows, {"site": "s", "fit": "f"})
    assert len(run.rows) == 4 * 2 * len(TARGETS)
    reached = run.rows.filter(status="ok")
    assert len(reached) >= 12
    for row in reached.iter_rows(named=True):
        factor = 1.0 if row["sign"] == "+" else -1.0
        kl = brute_kl(model, factor * row["strength"] * directions[row["feature_id"] - 10])
        assert kl == pytest.approx(row["target_kl_nats"], rel=0.051)
        assert kl == pytest.approx(row["achieved_kl_nats"], rel=1e-3)
    missed = run.rows.filter(pl.col("status") != "ok")
    assert missed["status"].unique().to_list() in ([], ["not_reached"])
    suffix = SuffixForward(model, SITE, PROMPTS)
    ladder = torch.logspace(-3, 2, 60)[:, None] * run.median_activation_norm
    for row in missed.iter_rows(named=True):
        factor = 1.0 if row["sign"] == "+" else -1.0
        curve = mean_kl(suffix, factor * ladder * directions[row["feature_id"] - 10], 64)
        assert max(curve) < row["target_kl_nats"], "a target within reach was given up"
        assert row["achieved_kl_nats"] == pytest.approx(max(curve), rel=0.1)
    points = run.curve.group_by("feature_id", "sign").len()
    counted = run.rows.group_by("feature_id", "sign").agg(
        most=pl.col("n_evaluations").max(), apart=pl.col("n_evaluations").sum()
    )
    joined = points.join(counted, on=["feature_id", "sign"])
    assert len(joined) == 8 and (joined["len"] >= joined["most"]).all()
    assert (joined["len"] < joined["apart"]).all(), "searches of one curve share no evaluation"


def test_signs_are_calibrated_apart() -> None:
    model = tiny_model("gpt2")
    rows = calibrate(model, unit_directions(model, 4)).rows.filter(status="ok")
    wide = rows.pivot(
        "sign", index=["feature_id", "target_kl_nats"], values="strength"
    ).drop_nulls()
    assert len(wide) > 4
    assert ((wide["+"] / wide["-"] - 1).abs() > 0.05).any()


def test_a_direction_without_effect_is_a_row_with_status() -> None:
    model = tiny_model("llama")
    neuron = 3
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[:, neuron] = 0
    directions = torch.zeros(1, locate_site(model, SITE).width)
    directions[0, neuron] = 1.0
    run = calibrate(model, directions, own_tokens={10: [5]})
    assert run.rows["status"].to_list() == ["not_reached"] * 6
    assert run.rows["strength"].null_count() == 6
    assert run.rows["token_logprob_gain"].null_count() == 6
    assert run.rows["achieved_kl_nats"].max() < 1e-5
    assert all("stays below" in reason for reason in run.rows["reason"])
    CALIBRATIONS.conform(run.rows, {"site": "s", "fit": "f"})


@pytest.mark.parametrize("architecture", ["gpt2", "gemma2", "opt"])
def test_companions_do_not_change_a_row(architecture: str) -> None:
    model = tiny_model(architecture)
    directions = unit_directions(model, 3)
    own_tokens = {11: [5, 20]}
    together = calibrate(model, directions, own_tokens=own_tokens).rows
    for target in TARGETS:
        alone = calibrate(
            model,
            directions[1:2],
            feature_ids=[11],
            signs=["-"],
            target_kl_nats=[target],
            own_tokens=own_tokens,
        ).rows
        expected = together.filter(feature_id=11, sign="-", target_kl_nats=target)
        assert alone.equals(expected), "not the same to the last bit"
    turned = calibrate(
        model,
        directions.flip(0),
        feature_ids=[12, 11, 10],
        target_kl_nats=TARGETS[::-1],
        own_tokens=own_tokens,
    ).rows
    assert turned.sort(together.columns[:3]).equals(together.sort(together.columns[:3]))


def test_the_size_of_batches_changes_rounding_only() -> None:
    model = tiny_model("gemma2")
    directions = unit_directions(model, 2)
    one, many = (calibrate(model, directions, batch_rows=n).rows for n in (1, 64))
    assert one["status"].to_list() == many["status"].to_list()
    strengths = zip(one["strength"], many["strength"], strict=True)
    assert all(a == b or a == pytest.approx(b, rel=1e-3) for a, b in strengths)


def test_token_gain_is_the_change_of_log_probability() -> None:
    model = tiny_model("llama")
    directions = unit_directions(model, 2)
    rows = calibrate(model, directions, own_tokens={11: [5, 20]}).rows
    assert rows.filter(feature_id=10)["token_logprob_gain"].null_count() == 6
    for row in rows.filter(feature_id=11, status="ok").iter_rows(named=True):
        vector = (1 if row["sign"] == "+" else -1) * row["strength"] * directions[1]
        gains = [
            (full_probabilities(model, p, vector) / full_probabilities(model, p, 0 * vector)).log()
            for p in PROMPTS
        ]
        expected = torch.stack([gain[[5, 20]].mean() for gain in gains]).mean().item()
        assert row["token_logprob_gain"] == pytest.approx(expected, abs=1e-4)


def test_evaluations_run_only_the_blocks_from_the_site_on() -> None:
    model = tiny_model("llama")
    run = calibrate(model, unit_directions(model, 4))
    prompt_tokens = sum(map(len, PROMPTS))
    # The prompts run for the norm (it stops early) and to be cached; all else begins at block 1.
    evaluated = run.forward_tokens - 2 * prompt_tokens
    assert run.layer_token_evaluations == 3 * prompt_tokens + 2 * evaluated
    assert evaluated > prompt_tokens * len(run.curve)


def test_median_norm_and_progress() -> None:
    model = tiny_model("llama")
    norms: list[torch.Tensor] = []
    module = model.model.layers[1].mlp.down_proj
    handle = module.register_forward_pre_hook(lambda _, args: norms.append(args[0].norm(dim=-1)))
    for prompt in PROMPTS:
        model(input_ids=torch.tensor([prompt]))
    handle.remove()
    expected = torch.cat([n.flatten() for n in norms]).median().item()
    assert median_activation_norm(model, SITE, PROMPTS) == pytest.approx(expected, rel=1e-5)
    seen: list[tuple[int, int]] = []
    calibrate(model, unit_directions(model, 2), on_progress=lambda *a: seen.append(a))
    assert seen[-1] == (12, 12) and seen == sorted(seen)


def test_directions_that_are_no_unit_vectors_are_an_error() -> None:
    model = tiny_model("llama")
    directions = unit_directions(model, 2)
    with pytest.raises(ValueError, match="feature 11 has a direction of norm 2"):
        calibrate(model, directions * torch.tensor([[1.0], [2.0]]))
    with pytest.raises(ValueError, match="expected"):
        calibrate(model, directions[:, :5])
    with pytest.raises(ValueError, match="signs are"):
        calibrate(model, directions, signs=["x"])
