"""From evidence to requests, and from replies to rows of `labels`.

Every feature gets a row for every kind, whatever happened: `token_summary` from its peak words,
`input` and `output` from the LLM for the features that are asked about (strongest first, up to a
limit) and a status with a reason for the rest. "None" and TRASH are a status, not a label.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from assets.labels.config import LabelsConfig, LlmConfig
from assets.labels.evidence_shown import (
    context_line,
    shown_contexts,
    telling_words,
    token_summary,
    vocabulary_words,
    words_by_count,
)
from assets.labels.label_texts import clean_label
from assets.labels.prompts import LABEL_PROMPTS
from assets.labels.tables import LABELS
from assets.shared.chat import ChatReply, ChatRequest

NO_CONTEXTS = "no contexts: the feature does not fire on the corpus"
NO_TOKENS = "no vocabulary projection for this feature"

_SCHEMA = {
    column.name: column.polars_type
    for column in LABELS.columns
    if column.name not in LABELS.partition_by
}


@dataclass(frozen=True)
class LabelTask:
    """One label to ask for; without evidence there is no request, and `reason` says so."""

    feature_id: int
    kind: str
    request: ChatRequest | None
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
    shown = shown_contexts(
        contexts.filter(pl.col("feature_id").is_in(wanted)), config.n_contexts_shown
    )
    vocabulary = vocabulary_words(
        vocab_projection.filter(pl.col("feature_id").is_in(wanted)), config.n_vocab_shown
    )
    tasks: list[LabelTask] = []
    for feature_id in wanted:
        for kind in config.kinds:
            if kind == "input":
                values, reason = _input_values(shown.get(feature_id, []), style, config)
            else:
                values, reason = _output_values(vocabulary.get(feature_id, {}))
            prompt = LABEL_PROMPTS[kind, style]
            request = None if values is None else prompt.request(values, seed=config.seed)
            tasks.append(LabelTask(feature_id, kind, request, reason))
    return tasks


def requests_of(tasks: Sequence[LabelTask]) -> list[ChatRequest]:
    """What to send, in the order in which `label_rows` expects the replies."""
    return [task.request for task in tasks if task.request is not None]


def label_rows(
    tasks: Sequence[LabelTask],
    replies: Sequence[ChatReply],
    contexts: pl.DataFrame,
    config: LabelsConfig,
    *,
    all_features: Sequence[int],
    max_features: int | None,
) -> pl.DataFrame:
    """Rows of `labels` without site and fit, a row for each of `all_features` and kind.

    `replies` answer `requests_of(tasks)`; `max_features` is named as the reason of the features
    that no task asks about.
    """
    asked = [task for task in tasks if task.request is not None]
    if len(asked) != len(replies):
        raise ValueError(
            f"{len(asked)} requests but {len(replies)} replies; send requests_of(tasks)"
        )
    reply_of = {(t.feature_id, t.kind): r for t, r in zip(asked, replies, strict=True)}
    task_of = {(task.feature_id, task.kind): task for task in tasks}
    shown = shown_contexts(contexts, len(contexts))
    rows: list[dict[str, Any]] = []
    for feature_id in all_features:
        summary = token_summary(shown.get(feature_id, []))
        status, reason = ("ok", None) if summary else ("none", NO_CONTEXTS)
        rows.append(_row(feature_id, "token_summary", summary, status, reason))
        for kind in config.kinds:
            task, reply = task_of.get((feature_id, kind)), reply_of.get((feature_id, kind))
            if task is None:
                reason = f"beyond max_features={max_features}"
                rows.append(_row(feature_id, kind, None, "not_attempted", reason))
            elif reply is None:
                rows.append(_row(feature_id, kind, None, "none", task.reason))
            else:
                rows.append(_row(feature_id, kind, *_read(reply)) | _origin(reply))
    return pl.DataFrame(rows, schema=_SCHEMA)


def _input_values(
    contexts: Sequence[Mapping[str, Any]], style: str, config: LabelsConfig
) -> tuple[dict[str, str] | None, str | None]:
    words = [word for word, _ in words_by_count(contexts)]
    if not words:
        return None, NO_CONTEXTS
    if style == "words":
        return {"words": ", ".join(telling_words(contexts))}, None
    lines = [context_line(row, config.max_context_words, is_marked=True) for row in contexts]
    return {"contexts": "\n".join(f"- {line}" for line in lines), "words": ", ".join(words)}, None


def _output_values(
    words: Mapping[str, Sequence[str]],
) -> tuple[dict[str, str] | None, str | None]:
    promoted, suppressed = ", ".join(words.get("+", ())), ", ".join(words.get("-", ()))
    if not promoted:
        return None, NO_TOKENS
    # The `words` template reads only `words`: a small LLM mixes the two lists up.
    return {"words": promoted, "promoted": promoted, "suppressed": suppressed or "(none)"}, None


def _read(reply: ChatReply) -> tuple[str | None, str, str | None]:
    """Label, status and reason that a reply stands for."""
    if reply.status != "ok" or reply.text is None:
        return None, "failed", reply.reason or "the reply has no text"
    try:
        label = clean_label(str(json.loads(reply.text)["label"]))
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        return None, "failed", f"reply is not the JSON asked for ({error}): {reply.text[:80]!r}"
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
