"""The steering part of a study: targets, texts and the judge."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Sign = Literal["+", "-"]
PositiveNats = Annotated[float, Field(gt=0.0, le=20.0)]
Prompt = Annotated[str, Field(min_length=1, max_length=2000)]


class SteeringConfig(BaseModel):
    """How features are steered with, and how the texts are judged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_features: int | None = Field(
        default=None, ge=0, description="Features steered per fit, strongest first; null for all"
    )
    max_features_controls: int | None = Field(
        default=None, ge=0, description="The same for the null controls"
    )
    target_kl_nats: tuple[PositiveNats, ...] = Field(
        default=(0.025, 0.05, 0.1, 0.15, 0.25, 0.35, 0.5),
        min_length=1,
        description="KL(base‖steered) at the last prompt token that each strength is calibrated to",
    )
    signs: tuple[Sign, ...] = Field(
        default=("+", "-"),
        min_length=1,
        description="Signs of the feature direction, calibrated apart",
    )
    tolerance: float = Field(
        default=0.05, gt=0.0, lt=1.0, description="Largest relative error of an achieved KL"
    )
    max_evaluations: int = Field(
        default=48, ge=2, description="Strengths tried per feature, sign and target, at most"
    )
    max_strength_ratio: float = Field(
        default=100.0,
        gt=0.0,
        description="Largest strength, in median activation norms where the vector is added",
    )
    neutral_prompts: tuple[Prompt, ...] = Field(
        default=(
            "I think that",
            "It seems that",
            "We know that",
            "He said that",
            "This means that",
        ),
        min_length=1,
        description="Prompts that KL is averaged over and that texts begin with; prompts of one "
        "length in tokens share their batches",
    )
    n_texts: int = Field(default=8, ge=1, le=1000, description="Texts per feature, sign and target")
    max_new_tokens: int = Field(default=50, ge=1, le=4096, description="Longest text, in tokens")
    top_k: int = Field(default=30, ge=1, description="Sampling: tokens considered")
    top_p: float = Field(default=0.3, gt=0.0, le=1.0, description="Sampling: nucleus mass")
    temperature: float = Field(default=1.0, gt=0.0, description="Sampling temperature")
    batch_rows: int = Field(
        default=16,
        ge=1,
        le=1024,
        description="Rows of every generation batch, the last one filled up",
    )
    judge: Literal["graded", "json"] = Field(
        default="graded",
        description="graded: expected rating under the judge's token probabilities (small judges), "
        "or the digit it writes where its endpoint gives none; json: the rating it writes as JSON",
    )
    judged_labels: tuple[Literal["input", "output"], ...] = Field(
        default=("input",),
        min_length=1,
        description="Labels that the concept of a text is judged on. input: of what the feature "
        "fires on; output: of what its sign promotes (labels.kinds needs output and "
        "output_minus). The first gives the steering columns of features and of the comparison",
    )
    seed: int = Field(
        default=0, ge=0, description="Text i is sampled with seed + i, whatever the feature"
    )

    n_bootstrap: int = Field(
        default=1000, ge=0, description="Resamples of features for intervals of rating_agreement"
    )
    confidence: float = Field(
        default=0.95,
        gt=0.0,
        lt=1.0,
        description="Coverage of these intervals and of those of steering gains",
    )

    @field_validator("target_kl_nats", "signs", "neutral_prompts", "judged_labels")
    @classmethod
    def _without_repeats(cls, values: tuple[object, ...]) -> tuple[object, ...]:
        if len(set(values)) != len(values):
            raise ValueError(f"a value stands twice in {values}; name each once")
        return values
