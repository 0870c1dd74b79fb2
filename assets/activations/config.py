"""A study's settings for the subject model and for capturing its activations."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from assets.activations.site_names import ActivationSite, SiteKind


class ModelConfig(BaseModel):
    """The subject model and the sites studied in it: each layer at each kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(
        min_length=1,
        description="Short name (smollm2-135m-instruct, gemma3-270m), .gguf file, local folder or "
        "Hugging Face id",
    )
    name: str | None = Field(
        default=None,
        description="Name in site keys: a-z 0-9 . _ -; made from the source when left out",
    )
    revision: str | None = Field(
        default=None, description="Commit, tag or branch of a Hugging Face model"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="Number type that the model computes in"
    )
    layers: tuple[int, ...] = Field(min_length=1, description="Layers studied, 0 is the first")
    kinds: tuple[SiteKind, ...] = Field(
        default=("mlp_hidden",), min_length=1, description="Kinds of activation site at each layer"
    )

    @field_validator("name")
    @classmethod
    def _name_fits_partition_keys(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
            raise ValueError(f"model name {name!r} has other characters than a-z 0-9 . _ -")
        return name

    @field_validator("layers", "kinds")
    @classmethod
    def _no_repeats(cls, values: tuple) -> tuple:
        if len(set(values)) != len(values):
            raise ValueError(f"{values} names one twice; expected each once")
        return values

    @field_validator("layers")
    @classmethod
    def _layers_count_from_zero(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        if min(layers) < 0:
            raise ValueError(f"layers {layers} has a negative one; layers count from 0")
        return layers

    @property
    def sites(self) -> tuple[ActivationSite, ...]:
        """Every layer at every kind, layers first."""
        return tuple(ActivationSite(layer, kind) for layer in self.layers for kind in self.kinds)


class ActivationsConfig(BaseModel):
    """How documents are cut, batched and written to shards."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens_per_document: int = Field(
        default=128, ge=2, description="Longer documents are cut here, special prefix included"
    )
    batch_tokens: int = Field(
        default=2048, ge=1, description="Most tokens, padding included, in one forward pass"
    )
    shard_tokens: int = Field(
        default=8192,
        ge=1,
        description="Tokens in a shard, about: half to twice as many. A killed capture may lose so "
        "many",
    )
    massive_norm_ratio: float = Field(
        default=5.0,
        gt=1.0,
        description="A token is massive when its row norm exceeds this many times the median",
    )
