"""Planted labels, contexts and judges for tests of label scores."""

from __future__ import annotations

import math
from collections.abc import Callable

import polars as pl

from assets.labels.config import LabelsConfig, LlmConfig
from assets.labels.label_scores import label_score_rows
from assets.labels.score_questions import ScoreTask, score_requests
from assets.labels.tables import LABEL_SCORES
from assets.shared.chat import ChatReply

REMOTE, EMBEDDED = LlmConfig(model="some-model"), LlmConfig()
# One method, one sort of negatives, no control: what the tests below add, they name.
CONFIG = LabelsConfig(
    n_held_out=4,
    score_kinds=("input",),
    score_methods=("detection",),
    score_negatives=("random",),
    n_shuffled=0,
)
PARTITION = {"site": "demo:m@L01.mlp_hidden", "fit": "snmf-k064"}


def labels(*statuses: str) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {"feature_id": i, "kind": kind, "label": "days" if s == "ok" else None, "status": s}
            for i, s in enumerate(statuses)
            for kind in ("input", "output", "token_summary")
        ]
    )


def contexts(n_features: int, n: int = 6) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "feature_id": i,
                "kind": kind,
                "rank_in_kind": rank,
                "document_id": f"{kind}-{rank}",
                "peak_token": "w",
                "text": f"{kind} {rank} w text",
                "marked_text": f"{kind} {rank} «w» text",
                "window_tokens": [kind, f" {rank}", " w", " text"],
                "window_coefficients": [0.0, 0.0, float(kind == "held_out"), 0.1],
            }
            for i in range(n_features)
            for kind in ("top", "sampled", "near_miss", "held_out", "negative", "hard_negative")
            for rank in reversed(range(n))
        ]
    )


def named(n: int) -> pl.DataFrame:
    """Labels of n features, all different."""
    return labels(*["ok"] * n).with_columns(label=pl.format("topic {}", "feature_id"))


def judge(tasks: list[ScoreTask], yes: Callable[[ScoreTask], float | None]) -> list[ChatReply]:
    replies = []
    for task in tasks:
        p = yes(task)
        request = task.request
        if p is None:
            failed = ChatReply(request, "h", "m", "failed", reason="timeout")
            replies.append(failed)
        else:
            logprobs = {"Yes": math.log(0.4 * p + 1e-12), "No": math.log(0.4 * (1 - p) + 1e-12)}
            replies.append(
                ChatReply(request, "h", "m", "ok", text="?", first_token_logprobs=logprobs)
            )
    return replies


def scored(
    config: LabelsConfig, yes: Callable[[ScoreTask], float | None], n: int = 10
) -> tuple[list[ScoreTask], pl.DataFrame]:
    frame = named(n)
    tasks = score_requests(frame, contexts(n), config, llm=REMOTE)
    rows = label_score_rows(tasks, judge(tasks, yes), frame, config, llm=REMOTE)
    LABEL_SCORES.conform(rows, PARTITION)
    return tasks, rows


FULL = CONFIG.model_copy(
    update={
        "score_methods": ("detection", "fuzzing"),
        "score_negatives": ("random", "hard"),
        "n_shuffled": 20,
    }
)


def truth(task: ScoreTask) -> float:
    """A judge that knows what each label means, and answers by it."""
    is_own = task.scored.label == f"topic {task.scored.feature_id}"
    return 0.9 if is_own and task.is_positive else 0.1
