"""Is a label right? A judge that sees only the label must tell where the feature fires.

Detection (as in delphi, Paulo et al., arXiv 2410.13928): of each held-out context, and of as many
contexts in which the feature does not fire, the judge is asked whether the text fits the label,
one call each (`detection`). Small judges instead choose the text's topic from the label and a
foil, another feature's label (`detection_choice`); the i-th held-out context and the i-th negative
get the same foils, so a label without meaning scores 0.5. The contexts are of kind held_out and
negative, which the labeller never sees. Foils are drawn by the other features' ids in hash order
(shared/hash_order.py): a feature whose label changes changes the questions that it is the foil of,
and no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int
from sklearn.metrics import roc_auc_score

from assets.labels.config import LabelsConfig, LlmConfig
from assets.labels.evidence_shown import context_line
from assets.labels.judging import choice_of_label, probability_of_yes
from assets.labels.prompts import LABEL_FITS_TEXT, LABEL_SCHEMA, SPARE_FOILS, TOPIC_OF_TEXT
from assets.labels.tables import LABEL_SCORES
from assets.shared.chat import ChatReply, ChatRequest
from assets.shared.hash_order import mixed, text_hashes

METHODS = {"yes_no": "detection", "choice": "detection_choice"}
POSITIVE_KIND, NEGATIVE_KIND = "held_out", "negative"

_SCHEMA = {
    column.name: column.polars_type
    for column in LABEL_SCORES.columns
    if column.name not in LABEL_SCORES.partition_by
}


@dataclass(frozen=True)
class ScoreTask:
    """One question to the judge: does this context fit this feature's label (or the foil)?"""

    feature_id: int
    kind: str
    label: str
    foil: str | None
    is_positive: bool
    document_id: str
    request: ChatRequest


def score_requests(
    labels: pl.DataFrame,
    contexts: pl.DataFrame,
    config: LabelsConfig,
    *,
    llm: LlmConfig | None = None,
) -> list[ScoreTask]:
    """Tasks for every label with status ok of `config.score_kinds` and each of its contexts.

    `labels` are rows of label_rows; `contexts` the evidence table's rows of the fit. At most
    `n_held_out` contexts of each sort, lowest rank first; `n_foils` tasks a context in a forced
    choice, else one. Raises ValueError where a held-out document was also shown to the labeller.
    """
    scored = labels.filter(pl.col("kind").is_in(config.score_kinds), pl.col("status") == "ok")
    wanted = scored["feature_id"].unique().to_list()
    contexts = contexts.filter(pl.col("feature_id").is_in(wanted))
    _check_disjoint(contexts)
    judged = (
        contexts.filter(pl.col("kind").is_in((POSITIVE_KIND, NEGATIVE_KIND)))
        .sort("feature_id", "kind", "rank_in_kind")
        .group_by("feature_id", "kind", maintain_order=True)
        .head(config.n_held_out)
        .with_columns(pl.int_range(pl.len()).over("feature_id", "kind").alias("pair"))
        .partition_by("feature_id", as_dict=True)
    )
    is_choice = config.judge_style_for(llm) == "choice"
    pools = {
        str(kind): (part["label"].to_list(), part["feature_id"].to_numpy())
        for (kind,), part in scored.partition_by("kind", as_dict=True).items()
    }
    tasks: list[ScoreTask] = []
    for feature_id, kind, label in scored.select("feature_id", "kind", "label").iter_rows():
        others, ids = pools[kind]
        rows = judged.get((feature_id,))
        for row in rows.iter_rows(named=True) if rows is not None else ():
            salt = (config.seed, feature_id, row["pair"])
            foils: Sequence[str | None] = [None]
            if is_choice:
                foils = _draw_foils(label, others, ids, config.n_foils, salt)
            text = context_line(row, config.max_context_words, is_marked=False)
            tasks += [
                ScoreTask(
                    feature_id=feature_id,
                    kind=kind,
                    label=label,
                    foil=foil,
                    is_positive=row["kind"] == POSITIVE_KIND,
                    document_id=row["document_id"],
                    request=_question(label, foil, text, config.seed),
                )
                for foil in foils
            ]
    return tasks


def label_score_rows(
    tasks: Sequence[ScoreTask],
    replies: Sequence[ChatReply],
    labels: pl.DataFrame,
    config: LabelsConfig,
    *,
    llm: LlmConfig | None = None,
) -> pl.DataFrame:
    """Rows of `label_scores` without site and fit, one a row of `labels` of `score_kinds`.

    `replies` answer the requests of `tasks`, in order.
    """
    answers: dict[tuple[int, str], dict[tuple[bool, str], list[float | None]]] = {}
    for task, reply in zip(tasks, replies, strict=True):
        of_label = answers.setdefault((task.feature_id, task.kind), {})
        of_label.setdefault((task.is_positive, task.document_id), []).append(_fit(task, reply))
    method = METHODS[config.judge_style_for(llm)]
    scored = labels.filter(pl.col("kind").is_in(config.score_kinds))
    rows: list[dict[str, Any]] = []
    for feature_id, kind, status in scored.select("feature_id", "kind", "status").iter_rows():
        by_context = [
            (is_positive, _mean_of_answered(fits))
            for (is_positive, _), fits in answers.get((feature_id, kind), {}).items()
        ]
        key = {"feature_id": feature_id, "kind": kind, "method": method}
        rows.append(key | _score(by_context, status))
    return pl.DataFrame(rows, schema=_SCHEMA)


def _question(label: str, foil: str | None, text: str, seed: int) -> ChatRequest:
    if foil is None:
        return LABEL_FITS_TEXT.request({"label": label, "text": text}, seed=seed)
    schema = LABEL_SCHEMA | {"properties": {"label": {"type": "string", "enum": [label, foil]}}}
    return TOPIC_OF_TEXT.request({"text": text}, seed=seed, json_schema=schema)


def _draw_foils(
    label: str,
    others: Sequence[str],
    feature_ids: Int[np.ndarray, " n_others"],
    n: int,
    salt: tuple[int, ...],
) -> list[str]:
    """`n` different labels that are not `label`: other features', else spare ones."""
    drawn = np.argsort(mixed(text_hashes(["foil"], *salt)[0], feature_ids), kind="stable")
    spare = np.argsort(text_hashes(SPARE_FOILS, *salt), kind="stable")
    pool: dict[str, str] = {}
    foils: list[str] = [others[int(i)] for i in drawn] + [SPARE_FOILS[int(i)] for i in spare]
    for foil in foils:
        if foil.casefold() != label.casefold():
            pool.setdefault(foil.casefold(), foil)
        if len(pool) == n:
            break
    return list(pool.values())


def _fit(task: ScoreTask, reply: ChatReply) -> float | None:
    return probability_of_yes(reply) if task.foil is None else choice_of_label(reply, task.label)


def _mean_of_answered(fits: Sequence[float | None]) -> float | None:
    answered = [fit for fit in fits if fit is not None]
    return sum(answered) / len(answered) if answered else None


def _score(answers: Sequence[tuple[bool, float | None]], label_status: str) -> dict[str, Any]:
    """Scores of one label from its contexts' answers: is it positive, and 0 to 1 or None."""
    positive = np.array([p for is_positive, p in answers if is_positive and p is not None])
    negative = np.array([p for is_positive, p in answers if not is_positive and p is not None])
    n_failed = sum(p is None for _, p in answers)
    row: dict[str, Any] = {
        "n_positive": len(positive),
        "n_negative": len(negative),
        "n_failed": n_failed,
        "balanced_accuracy": None,
        "auroc": None,
        "status": "failed",
        "reason": None,
    }
    if label_status != "ok":
        return row | {
            "status": "not_attempted",
            "reason": f"no label: its status is {label_status}",
        }
    if not answers:
        return row | {"status": "not_attempted", "reason": "no held-out contexts to judge"}
    if not len(positive) or not len(negative):
        found = f"{len(positive)} held-out contexts and {len(negative)} negatives were answered"
        return row | {"reason": f"{found}, both are needed; {n_failed} got no answer"}
    is_positive = np.arange(len(positive) + len(negative)) < len(positive)
    return row | {
        "balanced_accuracy": float(((positive > 0.5).mean() + (negative <= 0.5).mean()) / 2),
        "auroc": float(roc_auc_score(is_positive, np.concatenate([positive, negative]))),
        "status": "partial" if n_failed else "ok",
        "reason": f"{n_failed} of {len(answers)} contexts got no answer" if n_failed else None,
    }


def _check_disjoint(contexts: pl.DataFrame) -> None:
    """A score on documents that the labeller saw would say nothing."""
    keys = ["feature_id", "document_id"]
    held_out = contexts.filter(pl.col("kind") == POSITIVE_KIND).select(keys)
    shown = contexts.filter(pl.col("kind").is_in(("top", "sampled"))).select(keys)
    both = held_out.join(shown, on=keys, how="semi").unique()
    if len(both):
        feature_id, document_id = both.row(0)
        raise ValueError(
            f"{len(both)} held-out documents were shown to the labeller too (feature {feature_id}, "
            f"document {document_id}); the evidence stage must keep the kinds of contexts disjoint"
        )
