"""What the judge is asked to score labels: contexts of a feature, and a label beside each.

Detection (delphi; Paulo et al., arXiv 2410.13928): does the text fit the label? Asked of held-out
contexts, of `random` negatives (documents in which the feature does not fire) and of `hard` ones
(in which a similar feature fires instead).
Fuzzing (the same): does the marked word fit the label? Asked of held-out contexts with the word
marked at which they peak, with another word of them marked that is not active (`random`), and of
hard negatives with the word marked at which the similar feature peaks (`hard`). It is one word
everywhere, unlike delphi's all active ones: where the similar feature is active beside its peak is
not known, and the number of marks must not tell the sorts apart. A context without such a word is
left out and counted (`skipped_contexts`).
Simulation (Bills et al. 2023): how active is the feature at each word of a held-out context and of
a random negative; one call a word.

Small judges are not asked whether a label fits. By `likelihood` the label is forced upon them as
the topic of the text or of the marked word, and its log-probability is read, once more without any
text (sample `prior`): graded, a call a context. By `choice`, where no log-probabilities are to be
had, they choose between the label and foils, other features' labels. The i-th context of every sort
gets the same foils, so a label without meaning scores 0.5. The shuffled control (other_labels.py)
asks the same of another feature's label; its foils are never the feature's own label, which would
win by being right. It is asked of every sort, as each has a null of its own.

No context asked about was shown to the labeller. What answers are worth is label_scores.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import polars as pl

from assets.labels.config import JudgeStyle, LabelsConfig, LlmConfig, ScoreMethod
from assets.labels.evidence_shown import SHOWN_KINDS, context_line
from assets.labels.marked_contexts import MarkedContext
from assets.labels.other_labels import draw_foils, shuffled_labels
from assets.labels.prompts import LABEL_SCHEMA
from assets.labels.score_prompts import (
    LABEL_FITS_MARKS,
    LABEL_FITS_TEXT,
    RATE_WORD,
    TOPIC_OF_MARKS,
    TOPIC_OF_TEXT,
)
from assets.shared.chat import ChatRequest

Sample = Literal["positive", "random", "hard", "prior"]

KIND_OF_SAMPLE = {"positive": "held_out", "random": "negative", "hard": "hard_negative"}
# Of a forced choice and of likelihoods.
TOPIC_PROMPTS = {
    "detection": TOPIC_OF_TEXT,
    "fuzzing": TOPIC_OF_MARKS,
    "simulation": TOPIC_OF_MARKS,
}
YES_NO_PROMPTS = {"detection": LABEL_FITS_TEXT, "fuzzing": LABEL_FITS_MARKS}
FOIL_FAILED = "not asked: the label of another feature that was to be told from it failed"


@dataclass(frozen=True)
class ScoredLabel:
    """A label and the feature whose contexts it is judged on; another's where `is_shuffled`."""

    feature_id: int
    kind: str
    label: str
    is_shuffled: bool = False


@dataclass(frozen=True)
class ScoreTask:
    """One question to the judge: does this context fit the label (better than the foil)?

    `coefficient` is the true one of the word that is asked about, for simulation. Of sample
    `prior`, without a context, there is one a method and label, whatever the number of features.
    `not_asked` says why there is nothing to send: the feature that the foil was to be of has a
    label that failed, and another foil would make another question.
    """

    scored: ScoredLabel
    method: ScoreMethod
    sample: Sample
    document_id: str
    request: ChatRequest
    foil: str | None = None
    coefficient: float | None = None
    not_asked: str | None = None

    @property
    def is_positive(self) -> bool:
        return self.sample == "positive"


def scored_labels(labels: pl.DataFrame, config: LabelsConfig) -> list[ScoredLabel]:
    """Every label with status ok of `config.score_kinds`, and the shuffled ones of each kind."""
    found: list[ScoredLabel] = []
    for kind in config.score_kinds:
        own = _labels_of(labels, kind)
        found += [ScoredLabel(i, kind, label) for i, label in own.items() if label is not None]
        shuffled = shuffled_labels(own, config.n_shuffled, seed=config.seed)
        found += [ScoredLabel(i, kind, shuffled[i], True) for i in own if i in shuffled]
    return found


def score_requests(
    labels: pl.DataFrame,
    contexts: pl.DataFrame,
    config: LabelsConfig,
    *,
    llm: LlmConfig | None = None,
) -> list[ScoreTask]:
    """The questions about every label of `scored_labels`, by each method.

    `labels` are rows of label_rows; `contexts` the evidence table's rows of the fit. At most
    `n_held_out` contexts of each sort, lowest rank first; `n_foils` tasks a context in a forced
    choice, else one; of likelihoods one more a label. Raises ValueError where a document was both
    shown to the labeller and kept.
    """
    scored = scored_labels(labels, config)
    wanted = [one.feature_id for one in scored]
    contexts = contexts.filter(pl.col("feature_id").is_in(wanted))
    _check_disjoint(contexts)
    judged = _contexts_by_sample(contexts, config.n_held_out)
    labels_of_kind = {kind: _labels_of(labels, kind) for kind in config.score_kinds}
    style = config.judge_style_for(llm)
    tasks: list[ScoreTask] = []
    for method in config.score_methods_for(llm):
        for one in scored:
            rows = judged.get(one.feature_id, {})
            if method == "simulation":
                tasks += _word_questions(style, one, rows, config)
                continue
            others = labels_of_kind[one.kind]
            for sample, pair, row, text in _texts(method, one, rows, config):
                if text is None:
                    continue
                for foil, request in _questions(method, style, one, text, pair, others, config):
                    document, is_asked = row["document_id"], style != "choice" or foil is not None
                    reason = None if is_asked else FOIL_FAILED
                    task = ScoreTask(one, method, sample, document, request, foil)
                    tasks.append(replace(task, not_asked=reason))
        if style == "likelihood" and method != "simulation":
            asked = [task.scored for task in tasks if task.method == method]
            tasks += _prior_questions(method, asked, config)
    return tasks


def skipped_contexts(
    labels: pl.DataFrame,
    contexts: pl.DataFrame,
    config: LabelsConfig,
    *,
    llm: LlmConfig | None = None,
) -> Counter[tuple[ScoredLabel, Sample]]:
    """How many contexts of a label and sort fuzzing cannot ask about: no word of them to mark."""
    if "fuzzing" not in config.score_methods_for(llm):
        return Counter()
    judged = _contexts_by_sample(contexts, config.n_held_out)
    return Counter(
        (one, sample)
        for one in scored_labels(labels, config)
        for sample, _, _, text in _texts("fuzzing", one, judged.get(one.feature_id, {}), config)
        if text is None
    )


def samples_of(method: ScoreMethod, config: LabelsConfig) -> tuple[Sample, ...]:
    """The sorts of negatives that labels, shuffled ones too, are scored against."""
    return ("random",) if method == "simulation" else config.score_negatives


def _labels_of(labels: pl.DataFrame, kind: str) -> dict[int, str | None]:
    """Label by feature; None where it failed."""
    found = labels.filter(pl.col("kind") == kind, pl.col("status").is_in(["ok", "failed"]))
    return dict(found.select("feature_id", "label").iter_rows())


def _contexts_by_sample(
    contexts: pl.DataFrame, n: int
) -> dict[int, dict[str, list[Mapping[str, Any]]]]:
    """Feature → sort of sample → its first `n` contexts."""
    sample_of = {kind: sample for sample, kind in KIND_OF_SAMPLE.items()}
    ordered = contexts.filter(pl.col("kind").is_in(list(sample_of))).sort(
        "feature_id", "kind", "rank_in_kind"
    )
    found: dict[int, dict[str, list[Mapping[str, Any]]]] = {}
    for row in ordered.iter_rows(named=True):
        rows = found.setdefault(row["feature_id"], {}).setdefault(sample_of[row["kind"]], [])
        if len(rows) < n:
            rows.append(row)
    return found


def _texts(
    method: ScoreMethod,
    one: ScoredLabel,
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    config: LabelsConfig,
) -> Iterator[tuple[Sample, int, Mapping[str, Any], str | None]]:
    """Sort of sample, number within it, context and text of every text to ask about.

    The text is None where no word of the context can be marked.
    """
    for sample in ("positive", *samples_of(method, config)):
        # Fuzzing's random negatives are the held-out contexts again, otherwise marked.
        source = "positive" if (method, sample) == ("fuzzing", "random") else sample
        for pair, row in enumerate(rows.get(source, ())):
            if method == "fuzzing":
                text = _fuzzed(sample, one, row, config)
            else:
                text = context_line(row, config.max_context_words, is_marked=False)
            yield sample, pair, row, text


def _fuzzed(
    sample: Sample, one: ScoredLabel, row: Mapping[str, Any], config: LabelsConfig
) -> str | None:
    context = MarkedContext(row, config.max_context_words)
    peak = context.peak
    if sample != "hard" and peak not in context.active:
        return None
    if sample == "random":
        words = context.others(1, (config.seed, one.feature_id, row["document_id"]))
    else:
        words = [] if peak is None else [peak]
    return context.marked(words) if words else None


def _questions(
    method: ScoreMethod,
    style: JudgeStyle,
    one: ScoredLabel,
    text: str,
    pair: int,
    others: Mapping[int, str | None],
    config: LabelsConfig,
) -> Iterator[tuple[str | None, ChatRequest]]:
    if style == "yes_no":
        values = {"label": one.label, "text": text}
        yield None, YES_NO_PROMPTS[method].request(values, seed=config.seed)
        return
    if style == "likelihood":
        yield None, _forced(method, one.label, text, config)
        return
    salt = (config.seed, one.feature_id, pair)
    own = others[one.feature_id] if one.is_shuffled else None
    avoid = [one.label] if own is None else [one.label, own]
    for foil in draw_foils(others, config.n_foils, avoid=avoid, salt=salt):
        offered = [one.label] if foil is None else [one.label, foil]
        allowed = {"type": "string", "enum": offered}
        schema = LABEL_SCHEMA | {"properties": {"label": allowed}}
        prompt = TOPIC_PROMPTS[method]
        yield foil, prompt.request({"text": text}, seed=config.seed, json_schema=schema)


def _forced(method: ScoreMethod, label: str, text: str, config: LabelsConfig) -> ChatRequest:
    """Asks for log p(label) as the topic of `text`; the schema allows nothing else."""
    allowed = {"type": "string", "enum": [label]}
    schema = LABEL_SCHEMA | {"properties": {"label": allowed}}
    prompt = TOPIC_PROMPTS[method]
    request = prompt.request({"text": text}, seed=config.seed, json_schema=schema)
    return replace(request, wants_answer_logprob=True)


def _prior_questions(
    method: ScoreMethod, asked: Iterable[ScoredLabel], config: LabelsConfig
) -> Iterator[ScoreTask]:
    by_label: dict[str, ScoredLabel] = {}
    for one in asked:
        by_label.setdefault(one.label, one)
    for label, one in by_label.items():
        yield ScoreTask(one, method, "prior", "", _forced(method, label, "", config))


def _word_questions(
    style: JudgeStyle,
    one: ScoredLabel,
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    config: LabelsConfig,
) -> Iterator[ScoreTask]:
    for sample in ("positive", "random"):
        for row in rows.get(sample, ()):
            context = MarkedContext(row, config.max_context_words)
            for word in context.words:
                text = context.marked([word])
                if style == "likelihood":
                    request = _forced("simulation", one.label, text, config)
                else:
                    values = {"label": one.label, "text": text}
                    request = RATE_WORD.request(values, seed=config.seed)
                document = row["document_id"]
                yield ScoreTask(
                    one, "simulation", sample, document, request, coefficient=word.coefficient
                )


def _check_disjoint(contexts: pl.DataFrame) -> None:
    """A score on documents that the labeller saw would say nothing."""
    keys = ["feature_id", "document_id"]
    kept = contexts.filter(pl.col("kind").is_in(list(KIND_OF_SAMPLE.values()))).select(keys)
    shown = contexts.filter(pl.col("kind").is_in(SHOWN_KINDS)).select(keys)
    both = kept.join(shown, on=keys, how="semi").unique()
    if len(both):
        feature_id, document_id = both.row(0)
        raise ValueError(
            f"{len(both)} documents to score labels on were shown to the labeller too (feature "
            f"{feature_id}, document {document_id}); the evidence stage must keep the kinds of "
            "contexts disjoint"
        )
