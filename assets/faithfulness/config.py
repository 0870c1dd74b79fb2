"""The faithfulness part of a study: how many documents and features are run."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class FaithfulnessConfig(BaseModel):
    """What is sampled: each document is one full forward, and one from the site on a replacement;
    each ablated feature is one more from the site on for each of its documents."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_documents: int = Field(
        default=64, ge=1, description="Documents that the model is run on, drawn by seed"
    )
    n_documents_per_feature: int = Field(
        default=8,
        ge=1,
        description="Documents of the sample in which a feature is ablated: those where its "
        "largest coefficient is largest",
    )
    max_features: int | None = Field(
        default=None, ge=0, description="Features ablated per fit, strongest first; null for all"
    )
    max_features_controls: int | None = Field(
        default=None, ge=0, description="The same for the null controls"
    )
    batch_tokens: int = Field(
        default=256,
        ge=1,
        description="Most tokens, padding included, in one forward; three times batch_tokens × "
        "vocabulary × 4 bytes are held",
    )
    seed: int = Field(default=0, ge=0, description="Seed of the sample")
