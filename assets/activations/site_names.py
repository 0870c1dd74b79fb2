"""Activation sites by name: a layer and a kind, written "L15.mlp_hidden".

The kinds: `mlp_in` is what enters the MLP, after the norm before it; `mlp_hidden` is the input of
the MLP's down projection (width d_mlp); `mlp_out` and `attn_out` are what the MLP and the attention
add to the residual stream, after a norm of their own where the architecture has one (Gemma);
`resid_post` is the stream after the block (all but mlp_hidden of width d_model). An `mlp_in` is
read by the MLP alone: a direction there adds nothing to the stream by itself.

Where a site lies in a loaded model is sites.py; this module imports no torch, so that
configuration and definitions can name sites.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

SiteKind = Literal["mlp_in", "mlp_hidden", "mlp_out", "attn_out", "resid_post"]
SITE_KINDS: tuple[SiteKind, ...] = get_args(SiteKind)

_KEY_PATTERN = re.compile(r"L(?P<layer>\d+)\.(?P<kind>[a-z_]+)")


class SiteError(ValueError):
    """A site that a name does not describe, or that a model does not have."""


@dataclass(frozen=True, order=True)
class ActivationSite:
    """Layer (0 is the first block) and kind of an activation; `key` is its name."""

    layer: int
    kind: str = "mlp_hidden"

    def __post_init__(self) -> None:
        if self.kind not in SITE_KINDS:
            raise SiteError(
                f"unknown kind of activation site {self.kind!r}; "
                f"expected one of {', '.join(SITE_KINDS)}"
            )
        if self.layer < 0:
            raise SiteError(f"layer {self.layer} is negative; layers count from 0")

    @property
    def key(self) -> str:
        return f"L{self.layer}.{self.kind}"

    @classmethod
    def parse(cls, key: str) -> ActivationSite:
        """The site of a key such as "L15.mlp_hidden"; raises SiteError on anything else."""
        match = _KEY_PATTERN.fullmatch(key)
        if match is None:
            raise SiteError(
                f"{key!r} names no activation site; expected L<layer>.<kind>, e.g. L15.mlp_hidden"
            )
        return cls(int(match["layer"]), match["kind"])
