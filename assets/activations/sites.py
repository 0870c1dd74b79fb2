"""Activation sites: their names, and where they lie in a loaded model. The room's public face.

The names are defined in site_names.py (no torch), the structure of models in model_structure.py,
and the weights behind a site in projections.py.
"""

from assets.activations.model_structure import (
    BlockParts,
    LocatedSite,
    block_parts,
    locate_block,
    locate_blocks,
    locate_site,
    model_width,
)
from assets.activations.projections import (
    decoder_direction,
    down_projection_weight,
    final_norm,
    has_decoder_direction,
    norm_scale,
    unembedding,
)
from assets.activations.site_names import SITE_KINDS, ActivationSite, SiteError, SiteKind

__all__ = [
    "SITE_KINDS",
    "ActivationSite",
    "BlockParts",
    "LocatedSite",
    "SiteError",
    "SiteKind",
    "block_parts",
    "decoder_direction",
    "down_projection_weight",
    "final_norm",
    "has_decoder_direction",
    "locate_block",
    "locate_blocks",
    "locate_site",
    "model_width",
    "norm_scale",
    "unembedding",
]
