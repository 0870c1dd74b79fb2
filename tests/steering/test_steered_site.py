"""Where a norm stands behind the MLP, steering adds after it: no target is out of reach for that.

Theorem and control: before the norm, what a feature adds to the residual stream tends to one fixed
vector, and the KL with it; after it, what is added grows with the strength, and the KL goes beyond.
Other architectures are steered as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, Glm4Config, Olmo2Config, PreTrainedConfig

from assets.activations.sites import SITE_KINDS, ActivationSite, SiteError, locate_block
from assets.activations.suffix_forward import SuffixForward
from assets.factorization.sparse_rows import unit_rows
from assets.steering.calibration import CalibrationRun, calibrate_strengths
from assets.steering.generation import (
    SamplingSettings,
    SteeredRow,
    generate_steered,
    sample_token,
)
from assets.steering.next_token_change import median_activation_norm
from assets.steering.steered_site import steered_directions, steered_site
from assets.steering.tables import CALIBRATIONS
from tests.activations.tiny_models import ARCHITECTURES, GATED, tiny_model
from tests.steering.mean_kl import mean_kl
from tests.steering.planted_steering import NumberTokenizer

SITE = ActivationSite(1)
AFTER_NORM = ActivationSite(1, "mlp_out")
PROMPTS = [[5, 9, 33], [4, 17, 50, 8, 30], [7, 7, 12]]
D_MLP = 40
# Name of the norm between the MLP and the residual stream.
POST_NORMS = {
    "gemma2": "post_feedforward_layernorm",
    "gemma3": "post_feedforward_layernorm",
    "olmo2": "post_feedforward_layernorm",
    "glm4": "post_mlp_layernorm",
}
MORE_CONFIGS: dict[str, PreTrainedConfig] = {
    "olmo2": Olmo2Config(**GATED),
    "glm4": Glm4Config(**GATED, pad_token_id=0),
}
SETTINGS = SamplingSettings(max_new_tokens=10, top_k=20, top_p=0.9, batch_rows=4)


def model_of(architecture: str) -> nn.Module:
    """A tiny random model whose post-MLP norm has a gain of its own for each neuron."""
    if architecture in MORE_CONFIGS:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(MORE_CONFIGS[architecture])
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        model = model.eval().requires_grad_(False)
    else:
        model = tiny_model(architecture)
    model.generation_config.eos_token_id = None
    return model


def features(n: int, seed: int = 3) -> torch.Tensor:
    """Sparse unit rows, as SNMF's are."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, D_MLP, generator=generator)
    rows[torch.rand(n, D_MLP, generator=generator) > 0.2] = 0
    rows[:, 7] += 0.1
    return unit_rows(rows)


def post_norm(model: nn.Module, architecture: str) -> nn.Module:
    return getattr(locate_block(model, SITE.layer), POST_NORMS[architecture])


def through_the_modules(model: nn.Module, architecture: str, rows: torch.Tensor) -> torch.Tensor:
    """norm(W z) by the model's own modules, at unit length: what the paper's code adds."""
    added = post_norm(model, architecture)(locate_block(model, SITE.layer).mlp.down_proj(rows))
    return added / added.norm(dim=1, keepdim=True)


@contextmanager
def added_after_the_norm(
    model: nn.Module, architecture: str, vector: torch.Tensor
) -> Iterator[None]:
    """A hook of its own on the whole model, which knows nothing of sites."""
    handle = post_norm(model, architecture).register_forward_hook(
        lambda _, __, output: output + vector
    )
    try:
        yield
    finally:
        handle.remove()


def brute_kl(model: nn.Module, architecture: str, vector: torch.Tensor) -> float:
    total = 0.0
    for prompt in PROMPTS:
        inputs = torch.tensor([prompt])
        with torch.no_grad():
            base = model(input_ids=inputs).logits[0, -1].double().log_softmax(-1)
            with added_after_the_norm(model, architecture, vector):
                steered = model(input_ids=inputs).logits[0, -1].double().log_softmax(-1)
        total += float((base.exp() * (base - steered)).sum())
    return total / len(PROMPTS)


def calibrate(
    model: nn.Module, site: ActivationSite, rows: torch.Tensor, **options: object
) -> CalibrationRun:
    arguments = {
        "feature_ids": list(range(10, 10 + len(rows))),
        "signs": ["+", "-"],
        "target_kl_nats": (0.01, 0.2),
        "prompt_ids": PROMPTS,
    }
    return calibrate_strengths(model, site, rows, **(arguments | options))


def calibrate_features(model: nn.Module, rows: torch.Tensor, **options: object) -> CalibrationRun:
    """As the steering stage does it."""
    return calibrate(
        model, steered_site(model, SITE), steered_directions(model, SITE, rows), **options
    )


@pytest.mark.parametrize("architecture", POST_NORMS)
def test_features_before_a_norm_are_steered_after_it(architecture: str) -> None:
    model, rows = model_of(architecture), features(6)
    assert steered_site(model, SITE) == AFTER_NORM
    directions = steered_directions(model, SITE, rows)
    assert directions.norm(dim=1) == pytest.approx(torch.ones(6).numpy(), abs=1e-6)
    expected = through_the_modules(model, architecture, rows)
    torch.testing.assert_close(directions, expected, atol=1e-5, rtol=1e-4)
    # The gain is in it: the down projection alone points elsewhere.
    plain = unit_rows(locate_block(model, 1).mlp.down_proj(rows))
    assert ((plain * directions).sum(dim=1) < 0.999).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_else_is_steered_where_and_as_it_was_fitted(architecture: str) -> None:
    model, rows = tiny_model(architecture), features(3)
    unchanged = [
        kind for kind in SITE_KINDS if steered_site(model, ActivationSite(1, kind)).kind == kind
    ]
    expected = set(SITE_KINDS) - ({"mlp_hidden"} if architecture in POST_NORMS else set())
    assert set(unchanged) == expected
    for kind in unchanged:
        assert steered_directions(model, ActivationSite(1, kind), rows) is rows


@pytest.mark.parametrize("architecture", POST_NORMS)
def test_only_after_the_norm_a_feature_grows_with_its_strength(architecture: str) -> None:
    model, rows = model_of(architecture), features(4)
    norm, down = post_norm(model, architecture), locate_block(model, 1).mlp.down_proj
    hidden = torch.randn(1, D_MLP, generator=torch.Generator().manual_seed(1))
    before = [norm(down(hidden + strength * rows)) for strength in (1e4, 1e7)]
    torch.testing.assert_close(before[0], before[1], atol=1e-2, rtol=1e-2)
    limit = before[1].norm(dim=1)
    plain, after = SuffixForward(model, SITE, PROMPTS), SuffixForward(model, AFTER_NORM, PROMPTS)
    directions = steered_directions(model, SITE, rows)
    torch.testing.assert_close(before[1] / limit[:, None], directions, atol=1e-3, rtol=1e-3)
    saturated = torch.tensor(mean_kl(plain, 1e4 * rows, 16))
    assert mean_kl(plain, 1e7 * rows, 16) == pytest.approx(saturated.tolist(), rel=0.05)
    grown = torch.tensor(mean_kl(after, 30 * limit[:, None] * directions, 16))
    assert (grown > 1.5 * saturated).all(), (saturated, grown)


@pytest.mark.parametrize("architecture", POST_NORMS)
def test_targets_out_of_reach_before_the_norm_are_reached_after_it(architecture: str) -> None:
    model, rows = model_of(architecture), features(2)
    plain = SuffixForward(model, SITE, PROMPTS)
    ladder = torch.logspace(-1, 4, 16)[:, None]
    directions = through_the_modules(model, architecture, rows)
    for index, sign in [(i, sign) for i in range(2) for sign in "+-"]:
        factor = 1 if sign == "+" else -1
        target = 1.25 * max(mean_kl(plain, factor * ladder * rows[index], 16))
        options = {"target_kl_nats": (target,), "signs": [sign], "max_strength_ratio": 1e4}
        (control,) = calibrate(model, SITE, rows[[index]], **options).rows.iter_rows(named=True)
        assert (control["status"], control["steered_at"]) == ("not_reached", "mlp_hidden")
        run = calibrate_features(model, rows[[index]], **options)
        CALIBRATIONS.conform(run.rows, {"site": "s", "fit": "f"})
        (row,) = run.rows.iter_rows(named=True)
        assert (row["status"], row["steered_at"]) == ("ok", "mlp_out"), (row, control)
        assert run.median_activation_norm == median_activation_norm(model, AFTER_NORM, PROMPTS)
        kl = brute_kl(model, architecture, factor * row["strength"] * directions[index])
        assert kl == pytest.approx(row["achieved_kl_nats"], rel=1e-3)
        assert kl == pytest.approx(target, rel=0.051)


@pytest.mark.parametrize("architecture", ["gemma2", "gemma3", "olmo2"])
def test_texts_equal_a_loop_without_cache_and_know_no_batch_mates(architecture: str) -> None:
    model, rows = model_of(architecture), features(7)
    directions = through_the_modules(model, architecture, rows)
    vectors = 6 * steered_directions(model, SITE, rows)
    prompts = [(5, 9, 33), (4, 17, 50, 8, 30)]
    asked = [SteeredRow(i, "+", 0.1, i, prompts[i % 2], vectors[i], i) for i in range(7)]

    def write(rows: list[SteeredRow]) -> list[str]:
        return generate_steered(model, NumberTokenizer(), steered_site(model, SITE), rows, SETTINGS)

    texts = write(asked)
    assert texts == write(asked[::-1])[::-1] == [write([row])[0] for row in asked]
    for index in (0, 3):
        ids = list(prompts[index % 2])
        generator = torch.Generator().manual_seed(index)
        with added_after_the_norm(model, architecture, 6 * directions[index]), torch.no_grad():
            for _ in range(SETTINGS.max_new_tokens):
                logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
                ids.append(sample_token(logits, SETTINGS, generator))
        assert texts[index] == "".join(f" {i}" for i in ids[len(prompts[index % 2]) :])
    nothing = [SteeredRow(i, "+", 0.1, i, prompts[0], 0 * vectors[i], i) for i in range(3)]
    base = [SteeredRow(i, "0", 0.0, i, prompts[0], None, i) for i in range(3)]
    mixed = write([*nothing, *asked, *base])
    assert mixed[:3] == mixed[-3:] == write(base)
    assert mixed[3:-3] == texts and texts[0] != mixed[-3]


@pytest.mark.parametrize("architecture", ["gemma2", "gemma3"])
def test_companions_change_neither_directions_nor_rows(architecture: str) -> None:
    model, rows = model_of(architecture), features(37)
    together = steered_directions(model, SITE, rows)
    for which in (slice(0, 1), slice(5, 23), slice(36, 37)):
        assert torch.equal(steered_directions(model, SITE, rows[which]), together[which])
    assert steered_directions(model, SITE, rows[:0]).shape == (0, 16)
    some = calibrate_features(model, rows[:3]).rows
    alone = calibrate_features(model, rows[1:2], feature_ids=[11]).rows
    assert alone.equals(some.filter(feature_id=11)), "not the same to the last bit"
    again = calibrate_features(model, rows[:3], previous=some)
    assert (again.rows_reused, again.forward_tokens) == (12, 0) and again.rows.equals(some)
    before = calibrate(model, SITE, rows[:3]).rows
    assert calibrate_features(model, rows[:3], previous=before).rows_reused == 0


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "opt", "gpt_neox"])
def test_rows_of_other_architectures_are_those_of_the_plain_path(architecture: str) -> None:
    model = model_of(architecture)
    width = 64 if architecture == "gpt2" else D_MLP
    rows = torch.nn.functional.pad(features(3), (0, width - D_MLP))
    plain = calibrate(model, SITE, rows).rows
    assert calibrate_features(model, rows).rows.equals(plain)
    assert set(plain["steered_at"]) == {"mlp_hidden"}


def test_a_feature_that_the_down_projection_loses_is_a_row_with_status() -> None:
    model, rows = model_of("gemma2"), features(2)
    with torch.no_grad():
        locate_block(model, 1).mlp.down_proj.weight[:, 3] = 0
    rows[0] = torch.eye(D_MLP)[3]
    run = calibrate_features(model, rows, max_strength_ratio=300.0)
    lost = run.rows.filter(feature_id=10)
    assert set(lost["status"]) == {"not_reached"} and lost["achieved_kl_nats"].max() < 1e-5
    largest = 300 * median_activation_norm(model, AFTER_NORM, PROMPTS)
    assert all(f"up to the largest strength {largest:.4g}" in reason for reason in lost["reason"])
    assert len(run.rows.filter(pl.col("feature_id") == 11, status="ok")) > 0


def test_features_of_another_width_are_an_error() -> None:
    with pytest.raises(SiteError, match="do not fit site"):
        steered_directions(model_of("gemma2"), SITE, torch.eye(5))
    with pytest.raises(SiteError, match="out of range"):
        steered_site(model_of("gemma2"), ActivationSite(9))
