"""Is a label right? A judge that sees only the label must tell where the feature fires.

Detection (as in delphi, Paulo et al., arXiv 2410.13928): the judge is asked of each held-out
context, and of as many contexts in which the feature does not fire, whether the text fits the
label, one call each. The contexts are of kind held_out and negative, which the labeller never
sees. Reported are balanced accuracy at P(yes) = 0.5 and AUROC of P(yes). With a weak judge both
stay near 0.5 whatever the label: read them beside another judge's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from sklearn.metrics import roc_auc_score

from assets.labels.config import LabelsConfig
from assets.labels.evidence_shown import context_line
from assets.labels.judging import probability_of_yes
from assets.labels.prompts import LABEL_FITS_TEXT
from assets.labels.tables import LABEL_SCORES
from assets.shared.chat import ChatReply, ChatRequest

DETECTION = "detection"
POSITIVE_KIND, NEGATIVE_KIND = "held_out", "negative"

_SCHEMA = {
    column.name: column.polars_type
    for column in LABEL_SCORES.columns
    if column.name not in LABEL_SCORES.partition_by
}


@dataclass(frozen=True)
class ScoreTask:
    """One question to the judge: does this context fit this feature's label?"""

    feature_id: int
    kind: str
    is_positive: bool
    document_id: str
    request: ChatRequest


def score_requests(
    labels: pl.DataFrame, contexts: pl.DataFrame, config: LabelsConfig
) -> list[ScoreTask]:
    """A task for every label with status ok of `config.score_kinds` and each of its contexts.

    `labels` are rows of label_rows; `contexts` the evidence table's rows of the fit. At most
    `n_held_out` contexts of each sort, lowest rank first. Raises ValueError where a held-out
    document was also shown to the labeller.
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
        .partition_by("feature_id", as_dict=True)
    )
    tasks: list[ScoreTask] = []
    for feature_id, kind, label in scored.select("feature_id", "kind", "label").iter_rows():
        rows = judged.get((feature_id,))
        for row in rows.iter_rows(named=True) if rows is not None else ():
            text = context_line(row, config.max_context_words, is_marked=False)
            request = LABEL_FITS_TEXT.request({"label": label, "text": text}, seed=config.seed)
            is_positive = row["kind"] == POSITIVE_KIND
            tasks.append(ScoreTask(feature_id, kind, is_positive, row["document_id"], request))
    return tasks


def label_score_rows(
    tasks: Sequence[ScoreTask],
    replies: Sequence[ChatReply],
    labels: pl.DataFrame,
    config: LabelsConfig,
) -> pl.DataFrame:
    """Rows of `label_scores` without site and fit, one a row of `labels` of `score_kinds`.

    `replies` answer the requests of `tasks`, in order.
    """
    answers: dict[tuple[int, str], list[tuple[bool, float | None]]] = {}
    for task, reply in zip(tasks, replies, strict=True):
        answer = (task.is_positive, probability_of_yes(reply))
        answers.setdefault((task.feature_id, task.kind), []).append(answer)
    scored = labels.filter(pl.col("kind").is_in(config.score_kinds))
    rows = [
        {"feature_id": feature_id, "kind": kind, "method": DETECTION}
        | _score(answers.get((feature_id, kind), []), status)
        for feature_id, kind, status in scored.select("feature_id", "kind", "status").iter_rows()
    ]
    return pl.DataFrame(rows, schema=_SCHEMA)


def _score(answers: Sequence[tuple[bool, float | None]], label_status: str) -> dict[str, Any]:
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
        return row | {"reason": f"{found}, both are needed; {n_failed} judge calls failed"}
    is_positive = np.arange(len(positive) + len(negative)) < len(positive)
    return row | {
        "balanced_accuracy": float(((positive > 0.5).mean() + (negative <= 0.5).mean()) / 2),
        "auroc": float(roc_auc_score(is_positive, np.concatenate([positive, negative]))),
        "status": "partial" if n_failed else "ok",
        "reason": f"{n_failed} of {len(answers)} judge calls failed" if n_failed else None,
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
