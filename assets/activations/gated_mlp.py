"""The two input maps of a gated MLP, seen from the residual stream.

A gated MLP computes h = act(W_g x) ⊙ (W_u x) (Shazeer 2020, arXiv 2002.05202) from the norm's
output x = g ⊙ n, where n is the stream divided by its RMS. The norm's weight g is folded into both
maps here; a LayerNorm's centring too (rows lose their mean). Biases of maps and norm are left out.
Which map is the gate is not told: what is done with them (evidence's bilinear view) is symmetric.

Which norm comes before the MLP is asked of the model itself, by running one token: the one whose
output is the very tensor that the MLP is given. The names differ (Llama's post_attention_layernorm
is a norm before the MLP, Gemma's is not).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from assets.activations.hooks import run_forward
from assets.activations.model_structure import block_parts, linear_widths
from assets.activations.projections import norm_scale


@dataclass(frozen=True)
class GatedMlp:
    """Rows of the gate and of the up projection, the norm before them folded in, in float32."""

    first: Float[Tensor, "d_mlp d_model"]
    second: Float[Tensor, "d_mlp d_model"]


def gated_mlp(model: nn.Module, layer: int) -> GatedMlp | None:
    """The maps of block `layer`; None where the MLP is not gated (GPT-2, GPT-NeoX, OPT).

    Gated: two maps from d_model to d_mlp, or one to 2 d_mlp whose halves they are (Phi-3, GLM).
    Raises SiteError for a layer out of range or a block of unknown structure.
    """
    parts = block_parts(model, layer)
    d_mlp, d_model = linear_widths(parts.down_projection) or (0, 0)
    maps = [
        module
        for module in (parts.mlp.modules() if parts.mlp is not None else ())
        if isinstance(module, nn.Linear) and module is not parts.down_projection
    ]
    apart = [module for module in maps if linear_widths(module) == (d_model, d_mlp)]
    fused = [module for module in maps if linear_widths(module) == (d_model, 2 * d_mlp)]
    if len(apart) == 2:
        first, second = (module.weight.float() for module in apart)
    elif len(fused) == 1:
        first, second = fused[0].weight.float().split(d_mlp)
    else:
        return None
    norm = norm_before_mlp(model, layer)
    if norm is not None:
        first, second = (_folded(weight, norm) for weight in (first, second))
    return GatedMlp(first.detach(), second.detach())


@torch.no_grad()
def norm_before_mlp(model: nn.Module, layer: int) -> nn.Module | None:
    """The norm whose output the MLP of block `layer` is given; None where there is none."""
    parts = block_parts(model, layer)
    if parts.mlp is None:
        return None
    outputs: list[tuple[nn.Module, Any]] = []
    found: list[nn.Module] = []

    def keep(module: nn.Module, _: tuple[Any, ...], output: Any) -> None:
        outputs.append((module, output))

    def compare(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        given = args[0] if args else next(iter(kwargs.values()))
        found.extend(module for module, output in outputs if output is given)

    handles = [
        child.register_forward_hook(keep)
        for child in parts.block.children()
        if "norm" in type(child).__name__.lower()
    ]
    handles.append(parts.mlp.register_forward_pre_hook(compare, with_kwargs=True))
    try:
        device = next(model.parameters()).device
        ids = torch.zeros(1, 1, dtype=torch.long, device=device)
        run_forward(model, {"input_ids": ids}, stop_layer=layer)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _folded(weight: Float[Tensor, "d_mlp d_model"], norm: nn.Module) -> Tensor:
    scaled = weight * norm_scale(norm)
    if isinstance(norm, nn.LayerNorm):
        scaled = scaled - scaled.mean(dim=1, keepdim=True)
    return scaled
