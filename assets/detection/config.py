"""The detection part of a study: how many probe sentences, and how sure the intervals are."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class DetectionConfig(BaseModel):
    """How it is measured that a feature fires on its concept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_features: int | None = Field(
        default=None,
        ge=0,
        description="Features probed with sentences per fit, strongest first; null: all",
    )
    max_features_controls: int | None = Field(
        default=None, ge=0, description="The same for the null controls"
    )
    n_activating: int = Field(
        default=5,
        ge=1,
        le=50,
        description="Sentences about the label that the LLM writes per feature",
    )
    n_neutral: int = Field(
        default=5,
        ge=1,
        le=24,
        description="Neutral sentences per feature, of a bundled list those that are as long as "
        "its activating ones",
    )
    max_sentence_tokens: int = Field(
        default=40, ge=8, le=200, description="Longest sentence the LLM may write, in its tokens"
    )
    temperature: float = Field(
        default=0.8,
        ge=0.0,
        le=2.0,
        description="Sampling temperature of the sentences, so that they differ",
    )
    documents_without_concept: Literal["left_out", "negatives"] = Field(
        default="left_out",
        description="What the corpus's documents without a concept are where others have one. "
        "left_out: their theme is unknown, so that some may be of a concept, and they are compared "
        "with none; negatives: they are background, known to be of no concept, and count among the "
        "negatives of each",
    )
    confidence: float = Field(default=0.95, gt=0.0, lt=1.0, description="Coverage of the intervals")
    seed: int = Field(default=0, ge=0, description="Seed of sentences and of splits")
