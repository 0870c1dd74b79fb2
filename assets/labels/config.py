"""The labels part of a study, and the LLMs that write and judge in every stage."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

EMBEDDED = "embedded"
EMBEDDED_RECORDED_NAME = "embedded:smollm2-135m-instruct"

LlmLabelKind = Literal["input", "output", "output_minus", "combined"]
# What subtracting a feature promotes says nothing of where it fires, and is not scored by that.
ScoredLabelKind = Literal["input", "output", "combined"]
ScoreMethod = Literal["detection", "fuzzing", "simulation"]
Negatives = Literal["random", "hard"]
# The study key of an LLM: the one that writes, and the one that judges what was written.
LlmRole = Literal["llm", "judge_llm"]
PromptStyle = Literal["words", "contexts"]
JudgeStyle = Literal["yes_no", "choice", "likelihood"]


class LlmConfig(BaseModel):
    """A chat model of a study. Key and address come from the environment, never from a file."""

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
    timeout_seconds: float = Field(
        default=120.0,
        gt=0.0,
        description="Longest time that one attempt at a call may take, to the last byte",
    )
    max_retries: int = Field(
        default=2,
        ge=0,
        le=20,
        description="Further attempts at a call after a timeout, a lost connection or a reply that "
        "cannot be read; 0: no call is tried again, after 429 and 5xx neither",
    )
    retry_seconds: float = Field(
        default=300.0,
        ge=0.0,
        description="How long calls are tried again after 429 (too many requests) without any of "
        "them getting an answer, and a single call after 5xx",
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
    extra_completion_tokens: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="Tokens that an answer may have beyond the prompt's own limit: reasoning "
        "models think within it, and need some thousands; not when embedded",
    )
    reasoning_effort: str | None = Field(
        default=None,
        min_length=1,
        description="How much a reasoning model thinks, in the endpoint's words (low, medium, "
        "high); null: not sent; not when embedded",
    )
    json_repair_attempts: int = Field(
        default=1,
        ge=0,
        le=3,
        description="How often an answer that is not the JSON asked for is sent back, with what "
        "was wrong; not when embedded, where a grammar binds the answer",
    )
    batch: bool = Field(
        default=False,
        description="Send a stage's calls as one batch of the provider (/v1/batches), answered "
        "within 24 h at a lower price; a run that ends before leaves it to the next one",
    )
    batch_price_factor: float = Field(
        default=0.5, gt=0.0, le=1.0, description="Share of the prices that batched calls cost"
    )
    batch_poll_seconds: float = Field(
        default=30.0,
        gt=0.0,
        description="First wait before a batch is looked at again; each is half as long again, "
        "up to 20 times the first",
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
    def has_prices(self) -> bool:
        """Whether it is known what a call costs."""
        prices = (self.usd_per_million_prompt_tokens, self.usd_per_million_completion_tokens)
        return self.is_embedded or None not in prices

    @property
    def calls_at_once(self) -> int:
        """How many calls are under way at the same time."""
        return self.concurrency or (1 if self.is_embedded else 8)

    @property
    def answer_options(self) -> dict[str, str]:
        """Options that change the answers of a model, where they are set: they are hashed."""
        if self.is_embedded:
            return {}
        set_ones = self.model_dump(
            include={"extra_completion_tokens", "reasoning_effort"}, exclude_defaults=True
        )
        return {name: str(value) for name, value in sorted(set_ones.items())}

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
        default=None, ge=0, description="The same for the null controls"
    )
    kinds: tuple[LlmLabelKind, ...] = Field(
        default=("input", "output", "output_minus", "combined"),
        description="Labels asked of the LLM: input (from contexts), output (from the tokens that "
        "the feature promotes), output_minus (from those that subtracting it promotes), combined "
        "(from contexts and promoted tokens); token_summary needs no LLM and is always there",
    )
    score_kinds: tuple[ScoredLabelKind, ...] = Field(
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
    n_near_misses_shown: int = Field(
        default=3,
        ge=0,
        le=100,
        description="Near misses shown per feature as contrast, in the contexts style only",
    )
    rerank: Literal["auto", "pmi", "none"] = Field(
        default="auto",
        description="pmi: of several candidate labels the one is kept that the evidence makes "
        "most probable beyond how probable it is anyway (pointwise mutual information); none: the "
        "LLM is asked once; auto: pmi when the LLM is embedded",
    )
    candidates: int = Field(
        default=3,
        ge=2,
        le=50,
        description="Candidate labels asked for where they are reranked, the greedy one first",
    )
    candidate_temperature: float = Field(
        default=1.0, gt=0.0, le=2.0, description="Sampling temperature of the other candidates"
    )
    pmi_weight: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="Weight of log p(label) against log p(label | evidence) where reranked",
    )
    judge_style: Literal["auto", "yes_no", "choice", "likelihood"] = Field(
        default="auto",
        description="How labels are scored. yes_no: does the text fit the label; likelihood: how "
        "probable the judge finds the label as the text's topic, for small LLMs of llama.cpp; "
        "choice: the label or another feature's, for other small LLMs; auto: likelihood when the "
        "LLM is embedded",
    )
    n_foils: int = Field(
        default=1,
        ge=1,
        le=20,
        description="Labels of other features that each context is tried with in a choice",
    )
    n_held_out: int = Field(
        default=10,
        ge=1,
        le=100,
        description="Held-out contexts and negatives (of each sort) a label is scored on",
    )
    score_methods: tuple[ScoreMethod, ...] | None = Field(
        default=None,
        description="How labels are scored. detection: does the text fit the label; fuzzing: do "
        "the marked words; simulation: how active is the feature at each word, a call a word; "
        "null: detection, and fuzzing too unless the LLM is embedded",
    )
    score_negatives: tuple[Negatives, ...] = Field(
        default=("random", "hard"),
        min_length=1,
        description="What held-out contexts are told from. random: documents where the feature "
        "does not fire; hard: those where a similar feature fires instead",
    )
    n_shuffled: int = Field(
        default=20,
        ge=0,
        description="Features whose contexts are also judged by another feature's label, as a "
        "control of the scores; at most half of those that are scored",
    )
    confidence: float = Field(default=0.95, gt=0.0, lt=1.0, description="Coverage of the intervals")
    max_context_words: int = Field(
        default=24, ge=3, le=400, description="Words of a context that are shown, around its peak"
    )
    seed: int = Field(default=0, ge=0, description="Seed sent with every request")

    def style_for(self, llm: LlmConfig) -> PromptStyle:
        """The style of prompt that `llm` is asked with."""
        if self.prompt_style == "auto":
            return "words" if llm.is_embedded else "contexts"
        return self.prompt_style

    def is_reranked_for(self, llm: LlmConfig) -> bool:
        """Whether `llm` is asked for several candidate labels, of which one is kept."""
        return self.rerank == "pmi" or (self.rerank == "auto" and llm.is_embedded)

    def judge_style_for(self, llm: LlmConfig | None) -> JudgeStyle:
        """How `llm` is asked whether a text fits a label; None is an LLM that is not embedded."""
        if self.judge_style == "auto":
            return "likelihood" if llm is not None and llm.is_embedded else "yes_no"
        return self.judge_style

    def score_methods_for(self, llm: LlmConfig | None) -> tuple[ScoreMethod, ...]:
        """The methods that labels are scored by; None is an LLM that is not embedded."""
        if self.score_methods is not None:
            return self.score_methods
        return ("detection",) if llm is not None and llm.is_embedded else ("detection", "fuzzing")

    @field_validator("kinds", "score_kinds", "score_methods", "score_negatives")
    @classmethod
    def _without_repeats(cls, values: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if values is not None and len(set(values)) != len(values):
            raise ValueError(f"a value stands twice in {values}; name each once")
        return values
