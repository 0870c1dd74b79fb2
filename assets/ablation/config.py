"""The ablation part of a study: which features are ablated, and on how much text."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

AblationName = Literal["zero", "mean"]


class AblationConfig(BaseModel):
    """Each feature, ablation and document is one run of the model from the site on, and one more
    for its null; each document is one full run beside."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ablations: tuple[AblationName, ...] = Field(
        default=("zero", "mean"),
        min_length=1,
        description="What a feature's coefficient is set to: zero, or its mean over the corpus",
    )
    n_documents_on: int = Field(
        default=8,
        ge=1,
        description="Documents per feature, drawn by seed among those with a strong token",
    )
    n_documents_off: int = Field(
        default=8,
        ge=1,
        description="Documents, drawn by seed among all, whose tokens that are not strong are off "
        "target",
    )
    n_documents_concept: int = Field(
        default=4,
        ge=0,
        description="Documents per feature of its concept in the corpus, drawn by seed; 0 for none",
    )
    n_documents_other: int | None = Field(
        default=None,
        ge=0,
        description="Documents per feature of other concepts, drawn by seed; null for as many as "
        "of its own",
    )
    strong_share: float = Field(
        default=0.5,
        gt=0.0,
        le=1.0,
        description="A token is strong where the coefficient is this share of the feature's "
        "largest, or more",
    )
    n_promoted: int = Field(
        default=10,
        ge=1,
        le=1000,
        description="First tokens of the feature's vocabulary projection whose log-probability is "
        "followed (as many as evidence.n_vocab has)",
    )
    min_direct_effect: float = Field(
        default=0.01,
        gt=0.0,
        description="Mean direct effect [logits] below which self-repair is not given: a share of "
        "nothing",
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
        description="Most tokens, padding included, in one forward; five times batch_tokens × "
        "vocabulary × 4 bytes are held",
    )
    seed: int = Field(default=0, ge=0, description="Seed of the documents drawn and the nulls")

    @property
    def n_of_others(self) -> int:
        """Documents of other concepts; none without documents of the concept."""
        if self.n_documents_other is None or not self.n_documents_concept:
            return self.n_documents_concept
        return self.n_documents_other

    @property
    def least_strong_reason(self) -> str:
        """Why a feature without documents to ablate it in has no effect."""
        return (
            "at no token that has a next one does its coefficient reach ablation.strong_share="
            f"{self.strong_share:g} of its largest"
        )
