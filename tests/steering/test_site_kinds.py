"""Steering at every kind of site: calibration and generation against plain full forwards."""

from __future__ import annotations

import pytest
import torch

from assets.activations.hooks import add_at_site
from assets.activations.sites import SITE_KINDS, ActivationSite, locate_site
from assets.steering.calibration import calibrate_strengths
from assets.steering.generation import (
    SamplingSettings,
    SteeredRow,
    generate_steered,
    sample_token,
)
from tests.activations.tiny_models import tiny_model

PROMPTS = [[5, 9, 33], [4, 17, 50, 8, 30]]
SETTINGS = SamplingSettings(max_new_tokens=8, top_k=20, top_p=0.9, batch_rows=4)


class NumberTokenizer:
    """Token i reads " i"."""

    eos_token_id: int | None = None

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return " ".join(map(str, ids))


def unit_direction(model: torch.nn.Module, site: ActivationSite) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    direction = torch.randn(locate_site(model, site).width, generator=generator)
    return direction / direction.norm()


def log_probabilities(
    model: torch.nn.Module, site: ActivationSite, prompt: list[int], vector: torch.Tensor
) -> torch.Tensor:
    with torch.no_grad(), add_at_site(model, site, vector):
        return model(input_ids=torch.tensor([prompt])).logits[0, -1].double().log_softmax(-1)


@pytest.mark.parametrize("architecture", ["gemma2", "gpt_neox", "opt"])
@pytest.mark.parametrize("kind", SITE_KINDS)
def test_strengths_meet_their_target_at_every_kind(architecture: str, kind: str) -> None:
    model, site = tiny_model(architecture), ActivationSite(1, kind)
    direction = unit_direction(model, site)
    run = calibrate_strengths(
        model,
        site,
        direction[None],
        feature_ids=[4],
        signs=["+", "-"],
        target_kl_nats=[0.002],
        prompt_ids=PROMPTS,
    )
    reached = run.rows.filter(status="ok")
    assert len(reached) >= 1
    for row in reached.iter_rows(named=True):
        vector = (1 if row["sign"] == "+" else -1) * row["strength"] * direction
        kls = []
        for prompt in PROMPTS:
            base = log_probabilities(model, site, prompt, 0 * vector)
            steered = log_probabilities(model, site, prompt, vector)
            kls.append(float((base.exp() * (base - steered)).sum()))
        assert sum(kls) / len(kls) == pytest.approx(0.002, rel=0.06)


@pytest.mark.parametrize("kind", SITE_KINDS)
def test_texts_equal_a_loop_without_cache_at_every_kind(kind: str) -> None:
    model, site = tiny_model("llama"), ActivationSite(1, kind)
    model.generation_config.eos_token_id = None
    vector = 3 * unit_direction(model, site)
    ids, generator = [5, 9, 33], torch.Generator().manual_seed(8)
    with torch.no_grad(), add_at_site(model, site, vector):
        for _ in range(SETTINGS.max_new_tokens):
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            ids.append(sample_token(logits, SETTINGS, generator))
    row = SteeredRow(0, "+", 0.1, 0, (5, 9, 33), vector, 8)
    (text,) = generate_steered(model, NumberTokenizer(), site, [row], SETTINGS)
    assert text == "".join(f" {i}" for i in ids[3:])
