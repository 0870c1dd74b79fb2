"""Where steering adds a feature's vector: at which site, and along which unit direction.

A feature is added where it was fitted, except at `mlp_hidden` in architectures with a norm between
the MLP's output and the residual stream (Gemma 2 and 3, OLMo 2, GLM 4). With W the down projection
and z the feature, the MLP there adds, at strength α,

    norm(W h + α·W z)  →  norm(W z)  for α → ∞,

a vector of one fixed length: from some strength on nothing changes any more, short of many target
KLs, and of what the MLP itself computed nothing is left. So the vector is added after the norm, at
`mlp_out`, along

    d = g ∘ (W z) / ‖g ∘ (W z)‖,    g the norm's gain.

That is the feature's decoder direction (activations/projections.py) at unit length: that of
norm(W z) for an RMS norm, which Shafran, Geiger and Geva's code (arXiv 2506.10920) adds for Gemma
at the same place; only the length differs, which is the strength's part here as at every other
site. The down projection's bias is no part of a feature and left out. Like any vector at `mlp_out`,
α·d stays what it is whatever the token, where α·z before the norm would be divided by the norm of
what the MLP computes at the token.

Capture, ablation and faithfulness stay at `mlp_hidden`. How strongly is calibration.py's matter.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from assets.activations.sites import ActivationSite, block_parts, decoder_direction
from assets.factorization.sparse_rows import unit_rows


def steered_site(model: Any, site: ActivationSite) -> ActivationSite:
    """The site at which features of `site` are steered: `site` itself, or its layer's `mlp_out`.

    Raises SiteError for a layer out of range or a block of unknown structure.
    """
    if site.kind == "mlp_hidden" and block_parts(model, site.layer).mlp_post_norm is not None:
        return ActivationSite(site.layer, "mlp_out")
    return site


def steered_directions(
    model: Any, site: ActivationSite, directions: Float[Tensor, "n d"]
) -> Float[Tensor, "n d_steered"]:
    """Unit directions of `site` as unit directions of its steered site, of that one's width.

    Where both are one, `directions` as they are. A feature that the down projection sends to zero
    stays zero: it moves nothing. Raises SiteError when the width is not that of `site`.
    """
    if steered_site(model, site) == site:
        return directions
    # Row by row: a product of many rows may round a row in another way, and fingerprints of rows
    # made before would then hang on their companions.
    rows = [unit_rows(decoder_direction(model, site, row)) for row in directions.split(1)]
    return torch.cat(rows)
