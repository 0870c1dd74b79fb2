"""Probe sentences: activating ones written for a feature's label, neutral ones from a fixed list.

The paper has a strong LLM write both kinds. Here the neutral ones are bundled (neutral_sentences):
they cost no calls, are the same for every LLM, and a small LLM's "neutral" sentences are not.
Requests and rows are made here; scores are filled in by probe_scores.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from assets.detection.concept_statistics import concept_statistics
from assets.detection.config import DetectionConfig
from assets.detection.neutral_sentences import draw_neutral_sentences
from assets.detection.prompts import ACTIVATING_SENTENCE
from assets.detection.result_rows import CONCEPT_DETECTION_SCHEMA, empty_row, statistics_row
from assets.detection.tables import PROBE_SENTENCES
from assets.labels.chosen_labels import ChosenLabel
from assets.shared.chat import ChatReply, ChatRequest
from assets.shared.refusals import is_refusal

SOURCE = "generated"
ACTIVATING, NEUTRAL = "activating", "neutral"
FEWEST_CHARACTERS = 8

PROBE_SCHEMA = {
    column.name: column.polars_type
    for column in PROBE_SENTENCES.columns
    if column.name not in PROBE_SENTENCES.partition_by
}


@dataclass(frozen=True)
class ProbeTask:
    """One sentence to be written for a feature's label."""

    feature_id: int
    label: str
    sentence_index: int
    request: ChatRequest


def labels_to_probe(
    chosen: Mapping[int, ChosenLabel], strongest: Sequence[int], limit: int | None
) -> dict[int, str]:
    """The labels of the `limit` strongest features that have one, strongest first.

    A feature whose label failed keeps its place and is not probed: no other one moves up that would
    have to go when the LLM answers. `strongest` names the fit's features in order of strength
    (factorization/strength_order.py).
    """
    known = [(i, chosen[i]) for i in strongest if i in chosen]
    taken = [(i, one) for i, one in known if one.label is not None or one.is_failed][:limit]
    return {i: one.label for i, one in taken if one.label is not None}


def probe_requests(labels: Mapping[int, str], config: DetectionConfig) -> list[ProbeTask]:
    """`n_activating` tasks for each feature of `labels` (those to probe, each with its label).

    The sentences of a feature differ by their sampling seed.
    """
    return [
        ProbeTask(
            feature_id,
            label,
            index,
            ACTIVATING_SENTENCE.request(
                {"label": label},
                seed=config.seed + index,
                temperature=config.temperature,
                max_tokens=config.max_sentence_tokens,
            ),
        )
        for feature_id, label in labels.items()
        for index in range(config.n_activating)
    ]


def probe_sentence_rows(
    tasks: Sequence[ProbeTask],
    replies: Sequence[ChatReply],
    config: DetectionConfig,
    *,
    not_probed: Mapping[int, str],
) -> pl.DataFrame:
    """Rows of `probe_sentences` without site and fit, scores still NULL.

    `replies` answer the tasks' requests, in order. `not_probed` maps the features that were left
    out to the reason (no label, beyond max_features); each gets one row. A sentence that repeats
    one of the same feature is a failure: it would count twice.
    """
    rows: list[dict[str, Any]] = []
    seen: set[tuple[int, str]] = set()
    for task, reply in zip(tasks, replies, strict=True):
        sentence, reason = _read_sentence(reply)
        key = (task.feature_id, (sentence or "").casefold())
        if sentence is not None and key in seen:
            sentence, reason = None, f"the LLM wrote a sentence again: {sentence[:60]!r}"
        seen.add(key)
        row = _row(task.feature_id, ACTIVATING, task.sentence_index, sentence, reason)
        rows.append(row | {"request_hash": reply.request_hash})
    for feature_id in dict.fromkeys(task.feature_id for task in tasks):
        drawn = draw_neutral_sentences(config.n_neutral, seed=config.seed, feature_id=feature_id)
        rows += [_row(feature_id, NEUTRAL, i, text, None) for i, text in enumerate(drawn)]
    for feature_id, reason in not_probed.items():
        row = _row(feature_id, ACTIVATING, 0, None, reason)
        rows.append(row | {"status": "not_attempted"})
    return pl.DataFrame(rows, schema=PROBE_SCHEMA)


def generated_concept_rows(
    probe_sentences: pl.DataFrame, labels: Mapping[int, str], config: DetectionConfig
) -> pl.DataFrame:
    """Rows of `concept_detection` with source generated, one a feature of `probe_sentences`."""
    rows: list[dict[str, Any]] = []
    grouped = probe_sentences.partition_by("feature_id", as_dict=True, maintain_order=True)
    for (feature_id,), frame in grouped.items():
        label = labels.get(feature_id)
        written = frame.filter(pl.col("kind") == ACTIVATING)
        if (written["status"] == "not_attempted").all():
            reason = written["reason"][0]
            rows.append(empty_row(feature_id, SOURCE, "not_attempted", reason, label))
            continue
        scored = frame.filter(pl.col("score").is_not_null())
        groups = [
            scored.filter(pl.col("kind") == k)["score"].to_numpy() for k in (ACTIVATING, NEUTRAL)
        ]
        statistics = concept_statistics(
            groups[0],
            groups[1],
            n_bootstrap=config.n_bootstrap,
            confidence=config.confidence,
            seed=config.seed,
        )
        failed = frame.filter(pl.col("status") == "failed")
        reasons = (
            (f"{len(failed)} of {len(frame)} sentences failed: {failed['reason'][0]}",)
            if len(failed)
            else ()
        )
        rows.append(statistics_row(feature_id, SOURCE, label, statistics, more_reasons=reasons))
    return pl.DataFrame(rows, schema=CONCEPT_DETECTION_SCHEMA)


def _read_sentence(reply: ChatReply) -> tuple[str | None, str | None]:
    """The sentence of a reply, or the reason why there is none."""
    if reply.status != "ok":
        return None, reply.reason or "the call failed"
    sentence = re.sub(r"\s+", " ", reply.text or "").strip().strip('"“”')
    if len(sentence) < FEWEST_CHARACTERS:
        return None, f"the reply is no sentence: {sentence!r}"
    if is_refusal(sentence):
        return None, f"refused in place of a sentence: {sentence[:60]!r}"
    return sentence, None


def _row(
    feature_id: int, kind: str, index: int, sentence: str | None, reason: str | None
) -> dict[str, Any]:
    return {
        "feature_id": feature_id,
        "kind": kind,
        "sentence_index": index,
        "sentence": sentence,
        "score": None,
        "largest_norm": None,
        "smallest_massive_norm": None,
        "request_hash": None,
        "status": "ok" if reason is None else "failed",
        "reason": reason,
        "row_fingerprint": None,
    }
