"""Where an activation site lies in a loaded model, found by structure.

A decoder block is read as: one attention (a child with "att" in its name that holds linear maps)
and, outside it, one linear map from d_mlp to d_model: the MLP's down projection. That holds for
GPT-2 (`mlp.c_proj`, a Conv1D), Llama, SmolLM, Qwen, Mistral and Gemma (`mlp.down_proj`), GPT-NeoX
and Pythia (`mlp.dense_4h_to_h`) and OPT (`fc2`, straight on the block). A mixture of experts has
no single down projection and is refused with a SiteError.

The weights behind a site are projections.py; reading and changing activations is hooks.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from transformers.pytorch_utils import Conv1D

from assets.activations.site_names import ActivationSite, SiteError

# A norm applied to what the MLP (or attention) computed, before it joins the residual stream:
# Gemma 2/3 and OLMo 2, then GLM 4. Llama's post_attention_layernorm is another thing, the norm
# before the MLP; so the attention's name counts only where the MLP's partner is there.
_POST_NORM_NAMES = (
    ("post_feedforward_layernorm", "post_attention_layernorm"),
    ("post_mlp_layernorm", "post_self_attn_layernorm"),
)


@dataclass(frozen=True)
class BlockParts:
    """One decoder block taken apart; `mlp` is None where its maps lie on the block (OPT)."""

    block: nn.Module
    attention: nn.Module
    mlp: nn.Module | None
    down_projection: nn.Module
    attention_post_norm: nn.Module | None
    mlp_post_norm: nn.Module | None


@dataclass(frozen=True)
class LocatedSite:
    """The module whose input or output is the site's activation, its width, and its block."""

    site: ActivationSite
    module: nn.Module
    is_input: bool
    width: int
    block: nn.Module


def linear_widths(module: nn.Module) -> tuple[int, int] | None:
    """(input width, output width) of a linear map (Linear or GPT-2's Conv1D), else None."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, Conv1D):
        return module.nx, module.nf
    return None


def model_width(model: nn.Module) -> int:
    """d_model: the width of the residual stream."""
    return int(model.config.get_text_config().hidden_size)  # pyright: ignore


def locate_blocks(model: nn.Module) -> nn.ModuleList:
    """The model's decoder blocks, first to last; raises SiteError where there are none."""
    get_decoder = getattr(model, "get_decoder", None)
    decoder = get_decoder() if callable(get_decoder) else model
    if not isinstance(decoder, nn.Module):
        decoder = model
    stacks = [
        module
        for module in decoder.modules()
        if isinstance(module, nn.ModuleList) and len(module) and all(map(_attentions, module))
    ]
    if not stacks:
        raise SiteError(
            f"found no stack of decoder blocks with attention in {type(model).__name__}; expected "
            "a decoder-only transformer (GPT-2, Llama, Qwen, Mistral, Gemma, GPT-NeoX, OPT, ...)"
        )
    return max(stacks, key=len)


def locate_block(model: nn.Module, layer: int) -> nn.Module:
    """Decoder block `layer`; raises SiteError, naming how many there are, when out of range."""
    blocks = locate_blocks(model)
    if not 0 <= layer < len(blocks):
        raise SiteError(
            f"layer {layer} is out of range: {type(model).__name__} has {len(blocks)} layers "
            f"(n_layers={len(blocks)}); choose 0 to {len(blocks) - 1}"
        )
    return blocks[layer]


def block_parts(model: nn.Module, layer: int) -> BlockParts:
    """Block `layer` taken apart; raises SiteError where the structure is another one."""
    block = locate_block(model, layer)
    attentions = _attentions(block)
    if len(attentions) != 1:
        names = ", ".join(attentions)
        raise SiteError(
            f"block {layer} ({type(block).__name__}) has {len(attentions)} attentions ({names}); "
            "expected one"
        )
    attention = next(iter(attentions.values()))
    down_projection = _down_projection(block, attention, model_width(model), layer)
    mlp = next(
        (
            child
            for child in block.children()
            if child is not down_projection and down_projection in child.modules()
        ),
        None,
    )
    mlp_norm, attention_norm = next(
        (
            (getattr(block, mlp_name), getattr(block, attention_name, None))
            for mlp_name, attention_name in _POST_NORM_NAMES
            if hasattr(block, mlp_name)
        ),
        (None, None),
    )
    return BlockParts(
        block=block,
        attention=attention,
        mlp=mlp,
        down_projection=down_projection,
        attention_post_norm=attention_norm,
        mlp_post_norm=mlp_norm,
    )


def locate_site(model: nn.Module, site: ActivationSite) -> LocatedSite:
    """The module, side (input or output), width and block of `site` in `model`.

    Raises SiteError for a layer out of range or a block of unknown structure.
    """
    if site.kind == "resid_post":
        block = locate_block(model, site.layer)
        return LocatedSite(site, block, False, model_width(model), block)
    parts = block_parts(model, site.layer)
    if site.kind == "mlp_hidden":
        widths = linear_widths(parts.down_projection)
        assert widths is not None  # block_parts chose it among linear maps
        return LocatedSite(site, parts.down_projection, True, widths[0], parts.block)
    if site.kind == "mlp_in":
        module = parts.mlp or _up_projection(parts, site.layer)
        return LocatedSite(site, module, True, model_width(model), parts.block)
    if site.kind == "mlp_out":
        module = parts.mlp_post_norm or parts.mlp or parts.down_projection
    else:
        module = parts.attention_post_norm or parts.attention
    return LocatedSite(site, module, False, model_width(model), parts.block)


def _up_projection(parts: BlockParts, layer: int) -> nn.Module:
    """The map that feeds the down projection, where both lie straight on the block (OPT)."""
    d_mlp, d_model = linear_widths(parts.down_projection) or (0, 0)
    found = [
        child
        for child in parts.block.children()
        if child is not parts.down_projection and linear_widths(child) == (d_model, d_mlp)
    ]
    if len(found) != 1:
        raise SiteError(
            f"block {layer} ({type(parts.block).__name__}) has {len(found)} maps from {d_model} to "
            f"{d_mlp} beside its down projection; expected one, whose input is the site mlp_in"
        )
    return found[0]


def _attentions(block: nn.Module) -> dict[str, nn.Module]:
    return {
        name: child
        for name, child in block.named_children()
        if "att" in name.lower() and any(True for _ in _linear_maps(child))
    }


def _linear_maps(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_modules():
        if linear_widths(child) is not None:
            yield name, child


def _down_projection(block: nn.Module, attention: nn.Module, d_model: int, layer: int) -> nn.Module:
    inside_attention = set(attention.modules())
    writers = {
        name: module
        for name, module in _linear_maps(block)
        if module not in inside_attention and (linear_widths(module) or (0, 0))[1] == d_model
    }
    narrowing = {
        name: module
        for name, module in writers.items()
        if (linear_widths(module) or (0, 0))[0] != d_model
    }
    if len(narrowing) == 1:
        return next(iter(narrowing.values()))
    if not narrowing and writers:  # d_mlp = d_model: the map registered last writes the output
        return list(writers.values())[-1]
    found = ", ".join(narrowing) or "none"
    raise SiteError(
        f"block {layer} ({type(block).__name__}) has no single MLP down projection to width "
        f"{d_model} (found: {found}); such a block (a mixture of experts, say) has only the site "
        "resid_post"
    )
