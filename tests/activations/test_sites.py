"""Sites found by structure: what is captured is what the model computes, in each architecture."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig

from assets.activations.hooks import record_sites, replace_at_site, run_forward
from assets.activations.sites import (
    SITE_KINDS,
    ActivationSite,
    SiteError,
    block_parts,
    decoder_direction,
    down_projection_weight,
    final_norm,
    locate_block,
    locate_blocks,
    locate_site,
    unembedding,
)
from tests.activations.tiny_models import (
    ARCHITECTURES,
    CONFIGS,
    D_MODEL,
    N_LAYERS,
    VOCABULARY,
    tiny_model,
)

TOKENS = torch.tensor([[5, 9, 33, 12, 60, 7, 21], [4, 4, 17, 50, 8, 30, 2]])


def captured(model: nn.Module, *kinds: str, layer: int = 1) -> dict[str, torch.Tensor]:
    seen: dict[str, torch.Tensor] = {}
    sites = [ActivationSite(layer, kind) for kind in kinds]
    with record_sites(model, sites, lambda site, x: seen.update({site.kind: x.clone()})):
        run_forward(model, {"input_ids": TOKENS})
    return seen


def outputs_of(model: nn.Module, module: nn.Module) -> torch.Tensor:
    """What a module returned, asked of torch directly rather than through our hooks."""
    seen: list[torch.Tensor] = []
    handle = module.register_forward_hook(lambda _, __, output: seen.append(output))
    model(input_ids=TOKENS)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_hidden_through_the_down_projection_is_the_mlps_output(architecture: str) -> None:
    model = tiny_model(architecture)
    parts = block_parts(model, 1)
    hidden = captured(model, "mlp_hidden")["mlp_hidden"]
    assert hidden.shape[:2] == TOKENS.shape
    weight = down_projection_weight(model, 1)
    assert weight.shape == (hidden.shape[-1], D_MODEL)
    bias = getattr(parts.down_projection, "bias", None)
    output = hidden @ weight + (0 if bias is None else bias)
    expected = outputs_of(model, parts.mlp or parts.down_projection).reshape(output.shape)
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=0)
    if parts.mlp_post_norm is not None:
        torch.testing.assert_close(
            parts.mlp_post_norm(output), captured(model, "mlp_out")["mlp_out"], atol=1e-5, rtol=0
        )


def naive_mlp_input(architecture: str, model: nn.Module) -> torch.Tensor:
    """Block 1's input to the MLP: the norm before it, asked of the model by its own names."""
    block = locate_block(model, 1)
    norm = {
        "gpt2": "ln_2",
        "gemma2": "pre_feedforward_layernorm",
        "gemma3": "pre_feedforward_layernorm",
        "opt": "final_layer_norm",
        "opt_projected": "final_layer_norm",
    }.get(architecture, "post_attention_layernorm")
    before = captured(model, "resid_post", layer=0)["resid_post"]
    attention = captured(model, "attn_out")["attn_out"]
    # In parallel (Pythia) the MLP reads the stream before the attention has written to it.
    stream = before if architecture == "gpt_neox" else before + attention
    return getattr(block, norm)(stream)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_mlp_in_is_the_normed_stream_that_the_mlp_maps_to_its_output(architecture: str) -> None:
    model = tiny_model(architecture)
    entered = captured(model, "mlp_in")["mlp_in"]
    assert entered.shape == (*TOKENS.shape, D_MODEL)
    torch.testing.assert_close(entered, naive_mlp_input(architecture, model), atol=1e-5, rtol=1e-5)
    parts = block_parts(model, 1)
    if parts.mlp is None:  # OPT: two maps straight on the block
        output = parts.down_projection(parts.block.fc1(entered).relu())
    else:
        output = parts.mlp(entered)
    if parts.mlp_post_norm is not None:
        output = parts.mlp_post_norm(output)
    torch.testing.assert_close(output, captured(model, "mlp_out")["mlp_out"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_put_at_mlp_in_changes_the_mlp_alone(architecture: str) -> None:
    model = tiny_model(architecture)
    plain = captured(model, "attn_out", "mlp_out", "resid_post")
    with replace_at_site(model, ActivationSite(1, "mlp_in"), lambda x: x + 1):
        changed = captured(model, "attn_out", "mlp_out", "resid_post")
    torch.testing.assert_close(changed["attn_out"], plain["attn_out"], atol=1e-6, rtol=0)
    assert (changed["mlp_out"] - plain["mlp_out"]).abs().max() > 1e-3
    torch.testing.assert_close(
        changed["resid_post"] - changed["mlp_out"],
        plain["resid_post"] - plain["mlp_out"],
        atol=1e-5,
        rtol=1e-5,
    )


def test_a_direction_at_mlp_in_has_no_decoder_direction() -> None:
    model = tiny_model("llama")
    with pytest.raises(SiteError, match="mlp_in adds nothing to the residual stream"):
        decoder_direction(model, ActivationSite(1, "mlp_in"), torch.ones(2, D_MODEL))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_block_adds_attention_and_mlp_to_the_stream(architecture: str) -> None:
    model = tiny_model(architecture)
    before = captured(model, "resid_post", layer=0)["resid_post"]
    seen = captured(model, "attn_out", "mlp_out", "resid_post", layer=1)
    torch.testing.assert_close(
        seen["resid_post"], before + seen["attn_out"] + seen["mlp_out"], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_unembedding_the_normed_stream_gives_the_logits(architecture: str) -> None:
    model = tiny_model(architecture)
    stream = captured(model, "resid_post", layer=N_LAYERS - 1)["resid_post"]
    logits = final_norm(model)(stream) @ unembedding(model).T
    cap = getattr(CONFIGS[architecture], "final_logit_softcapping", None)
    if cap is not None:
        logits = torch.tanh(logits / cap) * cap
    torch.testing.assert_close(logits, model(input_ids=TOKENS).logits, atol=1e-4, rtol=1e-4)
    assert unembedding(model).shape == (VOCABULARY, D_MODEL)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_decoder_direction_is_what_a_neuron_writes_to_the_stream(architecture: str) -> None:
    model = tiny_model(architecture)
    site = ActivationSite(1)
    features = torch.randn(3, locate_site(model, site).width, generator=torch.manual_seed(1))
    directions = decoder_direction(model, site, features)
    bias = getattr(block_parts(model, 1).down_projection, "bias", None)
    for feature, direction in zip(features, directions, strict=True):
        with replace_at_site(model, site, lambda x, f=feature: f.expand_as(x)):
            written = captured(model, "mlp_out")["mlp_out"][0, 0]
        written = written - (0 if bias is None else bias)
        cosine = torch.cosine_similarity(written, direction, dim=0)
        assert cosine > 1 - 1e-5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", SITE_KINDS)
def test_every_kind_is_located_with_its_width(architecture: str, kind: str) -> None:
    model = tiny_model(architecture)
    site = ActivationSite(2, kind)
    located = locate_site(model, site)
    expected = CONFIGS[architecture].hidden_size
    if kind == "mlp_hidden":
        expected = 64 if architecture == "gpt2" else 40
    assert located.width == expected
    assert located.is_input == (kind in ("mlp_in", "mlp_hidden"))
    assert located.block is locate_blocks(model)[2]
    assert captured(model, kind, layer=2)[kind].shape == (*TOKENS.shape, expected)


def test_directions_of_stream_sites_are_the_features_themselves() -> None:
    features = torch.randn(2, D_MODEL)
    model = tiny_model("gemma2")
    assert torch.equal(
        decoder_direction(model, ActivationSite(0, "resid_post"), features), features
    )
    with pytest.raises(SiteError, match=r"\[k, 40\]"):
        decoder_direction(model, ActivationSite(0, "mlp_hidden"), features)


def test_an_mlp_as_wide_as_the_model_is_still_found() -> None:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    model = AutoModelForCausalLM.from_config(config)
    assert block_parts(model, 1).down_projection is model.model.layers[1].mlp.down_proj


def test_layer_out_of_range_names_the_number_of_layers() -> None:
    model = tiny_model("llama")
    with pytest.raises(SiteError, match=rf"layer 7 .*n_layers={N_LAYERS}.* 0 to {N_LAYERS - 1}"):
        locate_site(model, ActivationSite(7))
    with pytest.raises(SiteError, match="out of range"):
        locate_block(model, -1)


def test_a_mixture_of_experts_is_refused_in_words_but_its_stream_is_there() -> None:
    config = MixtralConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=3,
    )
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(SiteError, match="mixture of experts"):
        locate_site(model, ActivationSite(0))
    assert locate_site(model, ActivationSite(0, "resid_post")).width == 16


def test_a_model_without_attention_is_refused() -> None:
    with pytest.raises(SiteError, match="found no stack of decoder blocks"):
        locate_blocks(nn.Sequential(nn.Linear(3, 3)))


@pytest.mark.parametrize("kind", SITE_KINDS)
def test_a_key_names_its_site(kind: str) -> None:
    site = ActivationSite(15, kind)
    assert site.key == f"L15.{kind}"
    assert ActivationSite.parse(site.key) == site


@pytest.mark.parametrize("key", ["", "15.mlp_hidden", "L1", "L1.mlp", "Lx.mlp_out", "L1.mlp_out "])
def test_other_keys_are_refused(key: str) -> None:
    with pytest.raises(SiteError):
        ActivationSite.parse(key)
