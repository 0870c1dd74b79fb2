"""The labels part of a study, and the LLM that labels and judges in every stage."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

EMBEDDED = "embedded"
EMBEDDED_RECORDED_NAME = "embedded:smollm2-135m-instruct"

LlmLabelKind = Literal["input", "output"]
PromptStyle = Literal["words", "contexts"]
JudgeStyle = Literal["yes_no", "choice"]


class LlmConfig(BaseModel):
    """The chat model of a study. Key and address come from the environment, never from a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        default=EMBEDDED,
        min_length=1,
        description="embedded: SmolLM2-135M-Instruct in this process, no key, no network; else the "
        "name of a model at OPENAI_BASE_URL, with the key in OPENAI_API_KEY",
    )
    concurrency: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Calls under way at the same time; null: 8, and 1 when embedded, where more "
        "are no faster on few cores and batch mates change the last digits of an answer",
    )
    timeout_seconds: float = Field(default=120.0, gt=0.0, description="Longest wait for one answer")
    max_retries: int = Field(
        default=4,
        ge=0,
        le=20,
        description="Further attempts after 429, 5xx, a timeout or a lost connection",
    )
    usd_per_million_prompt_tokens: float | None = Field(
        default=None,
        ge=0.0,
        description="Price of what is sent; null where unknown (0 when embedded)",
    )
    usd_per_million_completion_tokens: float | None = Field(
        default=None,
        ge=0.0,
        description="Price of what is written; null where unknown (0 when embedded)",
    )
    embedded_context: int = Field(
        default=1024,
        ge=256,
        le=8192,
        description="Tokens of prompt and answer per call when embedded",
    )

    @property
    def is_embedded(self) -> bool:
        return self.model == EMBEDDED

    @property
    def calls_at_once(self) -> int:
        """How many calls are under way at the same time."""
        return self.concurrency or (1 if self.is_embedded else 8)

    @property
    def recorded_name(self) -> str:
        """The model's name in the lake and in request hashes."""
        return EMBEDDED_RECORDED_NAME if self.is_embedded else self.model


class LabelsConfig(BaseModel):
    """How many features are labelled, from what, and how their labels are scored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_features: int | None = Field(
        default=None,
        ge=0,
        description="Features labelled by the LLM per fit, strongest first; null for all",
    )
    max_features_controls: int | None = Field(
        default=None, ge=0, description="The same for the null controls (random, permuted)"
    )
    kinds: tuple[LlmLabelKind, ...] = Field(
        default=("input", "output"),
        description="Labels asked of the LLM: input (from contexts), output (from the vocabulary "
        "projection); token_summary needs no LLM and is always there",
    )
    score_kinds: tuple[LlmLabelKind, ...] = Field(
        default=("input",), description="Kinds of label that are scored on held-out contexts"
    )
    prompt_style: Literal["auto", "words", "contexts"] = Field(
        default="auto",
        description="words: only the peak words, for small LLMs; contexts: marked contexts; auto: "
        "words when the LLM is embedded, else contexts",
    )
    n_contexts_shown: int = Field(
        default=8,
        ge=1,
        le=100,
        description="Contexts shown per feature, top and sampled ones in turn",
    )
    n_vocab_shown: int = Field(
        default=10, ge=1, le=100, description="Vocabulary tokens shown per feature and sign"
    )
    judge_style: Literal["auto", "yes_no", "choice"] = Field(
        default="auto",
        description="How labels are scored. yes_no: does the text fit the label; choice: the "
        "label or another feature's, for small LLMs; auto: choice when the LLM is embedded",
    )
    n_foils: int = Field(
        default=1,
        ge=1,
        le=20,
        description="Labels of other features that each context is tried with",
    )
    n_held_out: int = Field(
        default=4,
        ge=1,
        le=100,
        description="Held-out contexts and negatives (each) a label is scored on",
    )
    max_context_words: int = Field(
        default=24, ge=3, le=400, description="Words of a context that are shown, around its peak"
    )
    seed: int = Field(default=0, ge=0, description="Seed sent with every request")

    def style_for(self, llm: LlmConfig) -> PromptStyle:
        """The style of prompt that `llm` is asked with."""
        if self.prompt_style == "auto":
            return "words" if llm.is_embedded else "contexts"
        return self.prompt_style

    def judge_style_for(self, llm: LlmConfig | None) -> JudgeStyle:
        """How `llm` is asked whether a text fits a label; None is an LLM that is not embedded."""
        if self.judge_style == "auto":
            return "choice" if llm is not None and llm.is_embedded else "yes_no"
        return self.judge_style

    @field_validator("kinds", "score_kinds")
    @classmethod
    def _without_repeats(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(values)) != len(values):
            raise ValueError(f"a value stands twice in {values}; name each once")
        return values
