"""Logits from the site's block on equal a plain full forward, in each architecture."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assets.activations.hooks import add_at_site
from assets.activations.sites import ActivationSite, locate_blocks, locate_site
from assets.activations.suffix_forward import SuffixForward, SuffixForwardError
from tests.activations.tiny_models import ARCHITECTURES, N_LAYERS, tiny_model

PROMPTS = [[5, 9, 33], [4, 17, 50, 8, 30, 21, 44, 10, 11, 12], [7, 7, 12]]


def full_logits(
    model: nn.Module, site: ActivationSite, prompt: list[int], vector: torch.Tensor
) -> torch.Tensor:
    with torch.no_grad(), add_at_site(model, site, vector):
        return model(input_ids=torch.tensor([prompt]), use_cache=False).logits[0, -1]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("layer", "kind"),
    [(0, "mlp_hidden"), (1, "resid_post"), (2, "mlp_out"), (1, "mlp_in"), (0, "attn_out")],
)
def test_equals_the_full_forward(architecture: str, layer: int, kind: str) -> None:
    model = tiny_model(architecture)
    site = ActivationSite(layer, kind)
    suffix = SuffixForward(model, site, PROMPTS)
    vectors = torch.randn(4, suffix.width, generator=torch.Generator().manual_seed(1))
    n_compared = 0
    for group in suffix.groups:
        which = torch.arange(4) % len(group.prompt_indices)
        logits = suffix.logits(group, which, vectors)
        for row in range(4):
            prompt = PROMPTS[group.prompt_indices[which[row]]]
            expected = full_logits(model, site, prompt, vectors[row])
            assert torch.allclose(logits[row], expected, atol=1e-4)
            base = full_logits(model, site, prompt, 0 * vectors[row])
            assert torch.allclose(group.base_logits[which[row]], base, atol=1e-4)
            assert not torch.allclose(expected, base, atol=1e-3), "the vector had no effect"
            n_compared += 1
    assert n_compared == 8  # two groups of lengths


def test_only_the_blocks_from_the_site_on_are_computed_and_counted() -> None:
    model = tiny_model("llama")
    suffix = SuffixForward(model, ActivationSite(2), PROMPTS)
    n_tokens = sum(map(len, PROMPTS))
    # Once through all blocks to fill the cache, once through the last one to check it.
    assert suffix.layer_token_evaluations == (N_LAYERS + 1) * n_tokens
    ran: list[int] = []
    handles = [
        block.self_attn.register_forward_hook(lambda *_, i=i: ran.append(i))
        for i, block in enumerate(locate_blocks(model))
    ]
    before = suffix.layer_token_evaluations
    group = suffix.groups[0]
    suffix.logits(group, torch.tensor([0, 1]), torch.ones(2, suffix.width))
    for handle in handles:
        handle.remove()
    assert ran == [2]
    assert suffix.layer_token_evaluations - before == 2 * 3


def test_an_exception_leaves_the_model_as_it_was() -> None:
    model = tiny_model("gemma3")
    site = ActivationSite(1)
    suffix = SuffixForward(model, site, PROMPTS)
    zero = torch.zeros(suffix.width)
    before = full_logits(model, site, PROMPTS[0], zero)

    def fail(*_: object) -> None:
        raise RuntimeError("in the middle of a forward")

    handle = locate_blocks(model)[2].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        suffix.logits(suffix.groups[0], torch.tensor([0]), torch.ones(1, suffix.width))
    handle.remove()
    assert torch.equal(full_logits(model, site, PROMPTS[0], zero), before)
    modules = [*locate_blocks(model), locate_site(model, site).module]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules)
    assert not any("forward" in m.__dict__ for m in modules)


def test_a_model_that_reads_more_than_the_residual_stream_is_refused() -> None:
    model = tiny_model("llama")
    blocks = locate_blocks(model)
    memory: list[torch.Tensor] = []
    blocks[0].register_forward_hook(lambda _, args, out: memory.append(out + args[0]))
    blocks[2].register_forward_hook(lambda _, args, out: out + memory[-1])
    with pytest.raises(SuffixForwardError, match="reads more than the residual stream"):
        SuffixForward(model, ActivationSite(1), PROMPTS)


def test_bad_prompts_and_training_mode_are_errors() -> None:
    model = tiny_model("llama")
    with pytest.raises(SuffixForwardError, match="no empty one"):
        SuffixForward(model, ActivationSite(1), [[1], []])
    with pytest.raises(SuffixForwardError, match=r"call model.eval\(\)"):
        SuffixForward(model.train(), ActivationSite(1), PROMPTS)
