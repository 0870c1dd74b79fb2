"""From evidence to requests, and from replies to rows of `labels`.

Every feature gets a row for every kind, whatever happened: `token_summary` from its peak words,
`input`, `output`, `output_minus` and `combined` from the LLM for the features that are asked about
(strongest first, up to a limit) and a status with a reason for the rest. The output labels are made
per sign: `output` from the tokens that the feature promotes, `output_minus` from those that
subtracting it promotes. "None" and TRASH are a status, not a label. Where candidates are reranked
(label_candidates.py), each label takes several requests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from assets.labels.config import LabelsConfig, LlmConfig
from assets.labels.evidence_shown import (
    Row,
    context_line,
    contrast_contexts,
    shown_contexts,
    telling_words,
    token_summary,
    vocabulary_words,
    words_by_count,
)
from assets.labels.label_candidates import Choice, Priors, choose, prior_requests, with_candidates
from assets.labels.label_texts import clean_label
from assets.labels.prompt import Prompt
from assets.labels.prompts import CONTRAST_HEAD, LABEL_PROMPTS
from assets.labels.tables import LABELS
from assets.shared.chat import ChatReply, ChatRequest
from assets.shared.refusals import is_refusal

NO_CONTEXTS = "no contexts: the feature does not fire on the corpus"
NO_TOKENS = "no vocabulary projection for this feature"

_SCHEMA = {
    column.name: column.polars_type
    for column in LABELS.columns
    if column.name not in LABELS.partition_by
}


@dataclass(frozen=True)
class LabelTask:
    """One label to ask for; without evidence there is nothing to ask, and `reason` says so.

    The first of `requests` is the greedy one; others are for further candidates.
    """

    feature_id: int
    kind: str
    prompt: Prompt
    requests: tuple[ChatRequest, ...] = ()
    reason: str | None = None


def label_requests(
    contexts: pl.DataFrame,
    vocab_projection: pl.DataFrame,
    config: LabelsConfig,
    *,
    features: Sequence[int],
    llm: LlmConfig,
) -> list[LabelTask]:
    """A task for each of `features` (those to ask about, strongest first) and kind of label.

    `contexts` and `vocab_projection` are the evidence tables' rows of one fit.
    """
    style = config.style_for(llm)
    wanted = list(features)
    contexts = contexts.filter(pl.col("feature_id").is_in(wanted))
    shown = shown_contexts(contexts, config.n_contexts_shown)
    contrast = contrast_contexts(contexts, config.n_near_misses_shown)
    vocabulary = vocabulary_words(
        vocab_projection.filter(pl.col("feature_id").is_in(wanted)), config.n_vocab_shown
    )
    tasks: list[LabelTask] = []
    for feature_id in wanted:
        evidence = _Evidence(
            shown.get(feature_id, []), contrast.get(feature_id, []), vocabulary.get(feature_id, {})
        )
        for kind in config.kinds:
            prompt = LABEL_PROMPTS[kind, style]
            values, reason = _VALUES[kind](evidence, style, config)
            requests: tuple[ChatRequest, ...] = ()
            if values is not None:
                request = prompt.request(values, seed=config.seed)
                requests = with_candidates(request, config, llm)
            tasks.append(LabelTask(feature_id, kind, prompt, requests, reason))
    return tasks


def requests_of(tasks: Sequence[LabelTask]) -> list[ChatRequest]:
    """What to send, in the order in which `label_rows` expects the replies."""
    return [request for task in tasks for request in task.requests]


def prior_requests_of(
    tasks: Sequence[LabelTask], replies: Sequence[ChatReply], config: LabelsConfig
) -> list[ChatRequest]:
    """What to send next where candidates are reranked, each once; often nothing.

    `replies` answer `requests_of(tasks)`; the answers are read by label_candidates.read_priors.
    """
    wanted: dict[tuple[str, str], ChatRequest] = {}
    for task, own in zip(tasks, _replies_by_task(tasks, replies), strict=True):
        for request in prior_requests(task.prompt, own, config.seed) if len(own) > 1 else ():
            wanted.setdefault((request.prompt_version, json.dumps(request.json_schema)), request)
    return list(wanted.values())


def label_rows(
    tasks: Sequence[LabelTask],
    replies: Sequence[ChatReply],
    contexts: pl.DataFrame,
    config: LabelsConfig,
    *,
    all_features: Sequence[int],
    beyond: str,
    priors: Priors | None = None,
) -> pl.DataFrame:
    """Rows of `labels` without site and fit, a row for each of `all_features` and kind.

    `replies` answer `requests_of(tasks)`; `priors` are log p(label) of the candidates, where they
    are reranked. `beyond` is the reason of features that no task asks about.
    """
    found = {
        (task.feature_id, task.kind): (task, own)
        for task, own in zip(tasks, _replies_by_task(tasks, replies), strict=True)
    }
    shown = shown_contexts(contexts, len(contexts))
    rows: list[dict[str, Any]] = []
    for feature_id in all_features:
        summary = token_summary(shown.get(feature_id, []))
        status, reason = ("ok", None) if summary else ("none", NO_CONTEXTS)
        rows.append(_row(feature_id, "token_summary", summary, status, reason))
        for kind in config.kinds:
            task, own = found.get((feature_id, kind), (None, []))
            if task is None:
                rows.append(_row(feature_id, kind, None, "not_attempted", beyond))
            elif not own:
                rows.append(_row(feature_id, kind, None, "none", task.reason))
            else:
                rows.append(_asked_row(task, own, priors or {}, config.pmi_weight))
    return pl.DataFrame(rows, schema=_SCHEMA)


def _replies_by_task(
    tasks: Sequence[LabelTask], replies: Sequence[ChatReply]
) -> list[Sequence[ChatReply]]:
    n_requests = sum(len(task.requests) for task in tasks)
    if n_requests != len(replies):
        raise ValueError(
            f"{n_requests} requests but {len(replies)} replies; send requests_of(tasks)"
        )
    parts: list[Sequence[ChatReply]] = []
    start = 0
    for task in tasks:
        parts.append(replies[start : start + len(task.requests)])
        start += len(task.requests)
    return parts


@dataclass(frozen=True)
class _Evidence:
    """What is shown of one feature: contexts, near misses, and tokens by sign."""

    contexts: Sequence[Row]
    contrast: Sequence[Row]
    tokens: Mapping[str, Sequence[str]]


_Values = tuple[dict[str, str] | None, str | None]


def _input_values(evidence: _Evidence, style: str, config: LabelsConfig) -> _Values:
    contexts = evidence.contexts
    words = [word for word, _ in words_by_count(contexts)]
    if not words:
        return None, NO_CONTEXTS
    if style == "words":
        return {"words": ", ".join(telling_words(contexts))}, None
    width = config.max_context_words
    lines = [f"- {context_line(row, width, is_marked=True)}" for row in contexts]
    # Unmarked: a mark would say that the feature is active there.
    near = [f"- {context_line(row, width, is_marked=False)}" for row in evidence.contrast]
    return {
        "contexts": "\n".join(lines),
        "contrast": CONTRAST_HEAD + "\n".join(near) if near else "",
        "words": ", ".join(words),
    }, None


def _output_values(evidence: _Evidence, style: str, config: LabelsConfig, *, sign: str) -> _Values:
    promoted = ", ".join(evidence.tokens.get(sign, ()))
    if not promoted:
        return None, NO_TOKENS
    return {"words": promoted, "promoted": promoted}, None


def _combined_values(evidence: _Evidence, style: str, config: LabelsConfig) -> _Values:
    values, reason = _input_values(evidence, style, config)
    promoted = evidence.tokens.get("+", ())
    if values is None or not promoted:
        return None, reason or NO_TOKENS
    if style == "words":
        # No more promoted tokens than telling words: those of middle layers are mostly noise.
        telling = telling_words(evidence.contexts)
        return {"words": ", ".join([*telling, *promoted[: len(telling)]])}, None
    return {**values, "promoted": ", ".join(promoted)}, None


_VALUES = {
    "input": _input_values,
    "output": partial(_output_values, sign="+"),
    "output_minus": partial(_output_values, sign="-"),
    "combined": _combined_values,
}


def _asked_row(
    task: LabelTask, replies: Sequence[ChatReply], priors: Priors, pmi_weight: float
) -> dict[str, Any]:
    """The row of a label that was asked for: of the greedy reply, or of the candidate kept."""
    label, status, reason = _read(replies[0])
    choice = Choice(label, (label,) if label is not None else ())
    if len(replies) > 1 and status != "failed":
        choice = choose(replies, priors, task.prompt.version, pmi_weight)
    row = _row(task.feature_id, task.kind, choice.label, status, reason)
    return row | {
        "candidates": list(choice.candidates) if len(replies) > 1 else None,
        "n_candidates": len(choice.candidates),
        "pmi_nats": choice.pmi_nats,
        **_origin(_reply_of(choice.label, replies)),
    }


def _reply_of(label: str | None, replies: Sequence[ChatReply]) -> ChatReply:
    """The reply that says the label; the greedy one where none was kept."""
    return next((reply for reply in replies if _read(reply)[0] == label), replies[0])


def _read(reply: ChatReply) -> tuple[str | None, str, str | None]:
    """Label, status and reason that a reply stands for."""
    if reply.status != "ok" or reply.text is None:
        return None, "failed", reply.reason or "the reply has no text"
    try:
        written = str(json.loads(reply.text)["label"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        return None, "failed", f"reply is not the JSON asked for ({error}): {reply.text[:80]!r}"
    if is_refusal(written):
        return None, "failed", f"refused in place of a label: {written[:80]!r}"
    label = clean_label(written)
    if label is None:
        return None, "none", "the LLM saw no common theme in the evidence"
    return label, "ok", None


def _row(
    feature_id: int, kind: str, label: str | None, status: str, reason: str | None
) -> dict[str, Any]:
    empty: dict[str, Any] = dict.fromkeys(_SCHEMA)
    return empty | {
        "feature_id": feature_id,
        "kind": kind,
        "label": label,
        "n_candidates": 0 if label is None else 1,
        "status": status,
        "reason": reason,
    }


def _origin(reply: ChatReply) -> dict[str, Any]:
    return {
        "prompt_name": reply.request.prompt_name,
        "prompt_version": reply.request.prompt_version,
        "llm_model": reply.model,
        "request_hash": reply.request_hash,
    }
