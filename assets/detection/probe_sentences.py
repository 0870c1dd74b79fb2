"""Probe sentences: activating ones written for a feature's label, neutral ones from a fixed list.

The paper has a strong LLM write both kinds. Here the neutral ones are bundled (neutral_sentences):
they cost no calls, are the same for every LLM, and a small LLM's "neutral" sentences are not. Each
feature gets those that are as long as its activating ones (length_matching.py).

Requests and rows are made here; scores are filled in by probe_scores.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from assets.detection.concept_statistics import concept_statistics
from assets.detection.config import DetectionConfig
from assets.detection.length_matching import matched_texts
from assets.detection.neutral_sentences import NEUTRAL_SENTENCES
from assets.detection.prompts import ACTIVATING_SENTENCE
from assets.detection.result_rows import (
    CONCEPT_DETECTION_SCHEMA,
    empty_row,
    mean_lengths,
    statistics_row,
)
from assets.detection.tables import PROBE_SENTENCES
from assets.labels.chosen_labels import ChosenLabel
from assets.shared.chat import ChatReply, ChatRequest
from assets.shared.hash_order import mixed, text_hashes
from assets.shared.refusals import is_refusal

SOURCE = "generated"
ACTIVATING, NEUTRAL = "activating", "neutral"
FEWEST_CHARACTERS = 8
# Statuses of features that no sentence is asked for.
NO_LABEL, BEYOND = NOT_PROBED = ("no_label", "not_attempted")

PROBE_SCHEMA = {
    column.name: column.polars_type
    for column in PROBE_SENTENCES.columns
    if column.name not in PROBE_SENTENCES.partition_by
}


@dataclass(frozen=True)
class NotProbed:
    """Why no sentence is asked for: NO_LABEL within the limit, or BEYOND it; and in words."""

    status: str
    reason: str


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

    One whose label is `none` takes no place. A feature whose label failed keeps its place and is
    not probed: no other one moves up that would have to go when the LLM answers. `strongest` names
    the fit's features in order of strength (factorization/strength_order.py).
    """
    reached = _within_limit(chosen, strongest, limit)
    return {i: label for i in reached if (label := chosen[i].label) is not None}


def features_not_probed(
    chosen: Mapping[int, ChosenLabel], strongest: Sequence[int], limit: int | None, beyond: str
) -> dict[int, NotProbed]:
    """Every other feature of `chosen` and why; arguments as for labels_to_probe.

    `beyond` is the reason of those that lie beyond the limit, whether or not they have a label.
    """
    reached = set(_within_limit(chosen, strongest, limit))
    out_of_reach = set(strongest) - reached
    found: dict[int, NotProbed] = {}
    for feature_id, one in chosen.items():
        if one.label is None and feature_id not in out_of_reach:
            found[feature_id] = NotProbed(NO_LABEL, one.reason or "no label")
        elif feature_id not in reached:
            found[feature_id] = NotProbed(BEYOND, beyond)
    return found


def _within_limit(
    chosen: Mapping[int, ChosenLabel], strongest: Sequence[int], limit: int | None
) -> list[int]:
    """Features of `chosen`, strongest first, until all places are taken."""
    reached: list[int] = []
    n_taken = 0
    for feature_id in strongest:
        if limit is not None and n_taken >= limit:
            break
        if feature_id in chosen:
            one = chosen[feature_id]
            reached.append(feature_id)
            n_taken += one.label is not None or one.is_failed
    return reached


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
    label_kind: str | None,
    not_probed: Mapping[int, NotProbed],
    count_tokens: Callable[[Sequence[str]], Sequence[int]],
) -> pl.DataFrame:
    """Rows of `probe_sentences` without site and fit, scores still NULL.

    `replies` answer the tasks' requests, in order. `label_kind` is that of the tasks' labels.
    `not_probed` are the features that were left out (features_not_probed); each gets one row. A
    sentence that repeats one of the same feature is a failure: it would count twice. `count_tokens`
    gives the subject model's tokens of each sentence.
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
    _add_token_counts(rows, count_tokens)
    rows += _neutral_rows(rows, config, count_tokens)
    for feature_id, left_out in not_probed.items():
        row = _row(feature_id, ACTIVATING, 0, None, left_out.reason)
        rows.append(row | {"status": left_out.status})
    frame = pl.DataFrame(rows, schema=PROBE_SCHEMA)
    return frame.with_columns(pl.lit(label_kind, pl.String).alias("label_kind"))


def generated_concept_rows(
    probe_sentences: pl.DataFrame, labels: Mapping[int, str], config: DetectionConfig
) -> pl.DataFrame:
    """Rows of `concept_detection` with source generated, one a feature of `probe_sentences`."""
    rows: list[dict[str, Any]] = []
    grouped = probe_sentences.partition_by("feature_id", as_dict=True, maintain_order=True)
    for (feature_id,), frame in grouped.items():
        label = labels.get(feature_id)
        written = frame.filter(pl.col("kind") == ACTIVATING)
        if written["status"].is_in(NOT_PROBED).all():
            status, reason = written.select("status", "reason").row(0)
            row = empty_row(feature_id, SOURCE, status, reason, label)
            rows.append(row | {"label_kind": frame["label_kind"][0]})
            continue
        scored = frame.filter(pl.col("score").is_not_null())
        groups = [scored.filter(pl.col("kind") == kind) for kind in (ACTIVATING, NEUTRAL)]
        statistics = concept_statistics(
            groups[0]["score"].to_numpy(),
            groups[1]["score"].to_numpy(),
            confidence=config.confidence,
            seed=config.seed,
        )
        failed = frame.filter(pl.col("status") == "failed")
        reasons = (
            (f"{len(failed)} of {len(frame)} sentences failed: {failed['reason'][0]}",)
            if len(failed)
            else ()
        )
        row = statistics_row(feature_id, SOURCE, label, statistics, more_reasons=reasons)
        lengths = mean_lengths(*(group["n_tokens"].to_numpy() for group in groups))
        rows.append(row | lengths | {"label_kind": frame["label_kind"][0]})
    return pl.DataFrame(rows, schema=CONCEPT_DETECTION_SCHEMA)


def _add_token_counts(
    rows: Sequence[dict[str, Any]], count_tokens: Callable[[Sequence[str]], Sequence[int]]
) -> None:
    written = [row for row in rows if row["sentence"] is not None]
    counts = count_tokens([row["sentence"] for row in written]) if written else ()
    for row, n_tokens in zip(written, counts, strict=True):
        row["n_tokens"] = n_tokens


def _neutral_rows(
    written: Sequence[Mapping[str, Any]],
    config: DetectionConfig,
    count_tokens: Callable[[Sequence[str]], Sequence[int]],
) -> list[dict[str, Any]]:
    """For each feature of `written` (its activating rows) neutral sentences of their lengths."""
    lengths_of: dict[int, list[int]] = {}
    for row in written:
        known = [] if row["n_tokens"] is None else [row["n_tokens"]]
        lengths_of.setdefault(row["feature_id"], []).extend(known)
    if not lengths_of:
        return []
    lengths = np.array(count_tokens(NEUTRAL_SENTENCES), dtype=np.int64)
    hashes = text_hashes(NEUTRAL_SENTENCES, config.seed, "neutral")
    rows: list[dict[str, Any]] = []
    for feature_id, wanted in lengths_of.items():
        drawn = matched_texts(wanted, config.n_neutral, lengths, mixed(hashes, feature_id))
        for i, place in enumerate(drawn):
            row = _row(feature_id, NEUTRAL, i, NEUTRAL_SENTENCES[place], None)
            rows.append(row | {"n_tokens": int(lengths[place])})
    return rows


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
        "label_kind": None,
        "sentence_index": index,
        "sentence": sentence,
        "n_tokens": None,
        "score": None,
        "largest_norm": None,
        "smallest_massive_norm": None,
        "request_hash": None,
        "status": "ok" if reason is None else "failed",
        "reason": reason,
        "row_fingerprint": None,
    }
