"""What the judge is asked to score labels: texts of a feature, and a label beside each.

Detection: does the text fit the label? Fuzzing: does the marked word? Which texts these are is
asked_texts.py. Simulation (Bills et al. 2023): how active is the feature at each word of a held-out
context and of a random negative; one call a word.

Small judges are not asked whether a label fits. By `likelihood` the label is forced upon them as
the topic of the text or of the marked word, and its log-probability is read, once more without any
text (sample `prior`): graded, a call a context. By `choice`, where no log-probabilities are to be
had, they choose between the label and foils, other features' labels. The i-th context of every sort
gets the same foils, so a label without meaning scores 0.5. The shuffled control (scored_labels.py)
asks the same of another feature's label; its foils are never the feature's own label, which would
win by being right. It is asked of every sort, as each has a null of its own.

What answers are worth is label_scores.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from assets.labels.asked_texts import Sample, check_disjoint, contexts_by_sample, texts_of
from assets.labels.config import JudgeStyle, LabelsConfig, LlmConfig, ScoreMethod
from assets.labels.marked_contexts import MarkedContext
from assets.labels.other_labels import draw_foils
from assets.labels.prompts import LABEL_SCHEMA
from assets.labels.score_prompts import (
    LABEL_FITS_MARKS,
    LABEL_FITS_TEXT,
    RATE_WORD,
    TOPIC_OF_MARKS,
    TOPIC_OF_TEXT,
)
from assets.labels.scored_labels import ScoredLabel, labels_of_kind, scored_labels
from assets.shared.chat import ChatRequest

# Of a forced choice and of likelihoods.
TOPIC_PROMPTS = {
    "detection": TOPIC_OF_TEXT,
    "fuzzing": TOPIC_OF_MARKS,
    "simulation": TOPIC_OF_MARKS,
}
YES_NO_PROMPTS = {"detection": LABEL_FITS_TEXT, "fuzzing": LABEL_FITS_MARKS}
FOIL_FAILED = "not asked: the label of another feature that was to be told from it failed"


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
    shown to the labeller and kept, or where a kept window repeats the words of those shown.
    """
    scored = scored_labels(labels, config)
    wanted = [one.feature_id for one in scored]
    contexts = contexts.filter(pl.col("feature_id").is_in(wanted))
    check_disjoint(contexts)
    judged = contexts_by_sample(contexts, config.n_held_out)
    own_of_kind = {kind: labels_of_kind(labels, kind) for kind in config.score_kinds}
    style = config.judge_style_for(llm)
    tasks: list[ScoreTask] = []
    for method in config.score_methods_for(llm):
        for one in scored:
            rows = judged.get(one.feature_id, {})
            if method == "simulation":
                tasks += _word_questions(style, one, rows, config)
                continue
            others = own_of_kind[one.kind]
            for sample, pair, row, text in texts_of(method, one, rows, config):
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
