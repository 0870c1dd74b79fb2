"""From a site to the residual stream and the vocabulary: the weights behind a site.

A feature z of `mlp_hidden` acts on the residual stream through the down projection, W z; where
the MLP has a norm of its own (Gemma 2/3), the norm divides by a per-token scalar and multiplies
by a fixed weight g, so the direction is g * (W z). Features of d_model sites are directions as
they are. Source: Geva et al. 2021, "Transformer Feed-Forward Layers Are Key-Value Memories",
section 2. Which tokens a direction favours is evidence's matter.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from assets.activations.model_structure import (
    block_parts,
    linear_widths,
    locate_blocks,
    locate_site,
    model_width,
)
from assets.activations.site_names import ActivationSite, SiteError


def down_projection_weight(model: nn.Module, layer: int) -> Float[Tensor, "d_mlp d_model"]:
    """The down projection of block `layer`, rows = MLP neurons, whatever module holds it."""
    module = block_parts(model, layer).down_projection
    weight = module.get_parameter("weight")
    # Conv1D stores [in, out], Linear [out, in].
    return weight.T if isinstance(module, nn.Linear) else weight


def has_decoder_direction(site: ActivationSite) -> bool:
    """Whether a direction at the site is a direction in the residual stream too."""
    return site.kind != "mlp_in"


def decoder_direction(
    model: nn.Module, site: ActivationSite, features: Float[Tensor, "k d"]
) -> Float[Tensor, "k d_model"]:
    """What each feature of `site` adds to the residual stream, up to scale, in float32.

    `features` has the site's width d: d_mlp at mlp_hidden, d_model elsewhere (returned as is).
    Raises SiteError when the width is another one, and at mlp_in, which only the MLP reads.
    """
    if not has_decoder_direction(site):
        raise SiteError(
            f"a direction at site {site.key} has no decoder direction: mlp_in adds nothing to the "
            "residual stream but through the MLP's non-linearity; use mlp_hidden or mlp_out"
        )
    width = locate_site(model, site).width
    if features.ndim != 2 or features.shape[1] != width:
        raise SiteError(
            f"features of shape {tuple(features.shape)} do not fit site {site.key}; "
            f"expected [k, {width}]"
        )
    if site.kind != "mlp_hidden":
        return features.float()
    weight = down_projection_weight(model, site.layer).float()
    directions = features.float().to(weight.device) @ weight
    post_norm = block_parts(model, site.layer).mlp_post_norm
    return directions if post_norm is None else directions * norm_scale(post_norm)


def norm_scale(norm: nn.Module) -> Float[Tensor, " d_model"]:
    """The fixed elementwise weight g of a norm: w of a LayerNorm, w or 1 + w of an RMS norm.

    An RMS norm maps the vector of ones to g / sqrt(1 + eps), which tells the two apart.
    """
    weight = norm.get_parameter("weight")
    if isinstance(norm, nn.LayerNorm):
        return weight.float()
    with torch.no_grad():
        return norm(torch.ones_like(weight)).float()


def final_norm(model: nn.Module) -> nn.Module:
    """The norm after the last block; an Identity where the model has none."""
    stack = locate_blocks(model)
    norms = [
        module
        for parent in model.modules()
        if any(child is stack for child in parent.children())
        for module in parent.children()
        if "norm" in type(module).__name__.lower()
    ]
    return norms[-1] if norms else nn.Identity()


def unembedding(model: nn.Module) -> Float[Tensor, "vocab d_model"]:
    """The matrix that turns the final norm's output into logits (bias and soft cap left out).

    Where a projection stands between the norm and the output embedding (OPT-350m), it is
    multiplied in. Raises SiteError where the model has no output embedding.
    """
    get_output = getattr(model, "get_output_embeddings", None)
    output = get_output() if callable(get_output) else None
    if not isinstance(output, nn.Module):
        raise SiteError(f"{type(model).__name__} has no output embedding; load it as a causal LM")
    weight = output.get_parameter("weight")
    d_model = model_width(model)
    if weight.shape[1] == d_model:
        return weight
    for module in model.modules():
        if linear_widths(module) == (d_model, weight.shape[1]) and module is not output:
            return weight @ module.get_parameter("weight")
    raise SiteError(
        f"the output embedding of {type(model).__name__} has width {weight.shape[1]}; expected "
        f"d_model = {d_model}"
    )
