"""Label scores: what the judge is asked, and what its answers are worth."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from assets.labels.config import LabelsConfig, LlmConfig
from assets.labels.judging import probability_of_yes
from assets.labels.label_scores import ScoreTask, label_score_rows, score_requests
from assets.labels.tables import LABEL_SCORES
from assets.shared.chat import ChatReply, ChatRequest

REMOTE, EMBEDDED = LlmConfig(model="some-model"), LlmConfig()
CONFIG = LabelsConfig(n_held_out=4, score_kinds=("input",))
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
            }
            for i in range(n_features)
            for kind in ("top", "sampled", "held_out", "negative")
            for rank in reversed(range(n))
        ]
    )


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


def test_the_judge_sees_held_out_and_negative_contexts_unmarked() -> None:
    tasks = score_requests(labels("ok", "failed"), contexts(2), CONFIG, llm=REMOTE)
    assert [task.feature_id for task in tasks] == [0] * 8
    assert sum(task.is_positive for task in tasks) == 4
    texts = [task.request.messages[-1]["content"] for task in tasks]
    assert all("days" in text and "«" not in text for text in texts)
    assert {task.document_id for task in tasks} == {
        f"{kind}-{rank}" for kind in ("held_out", "negative") for rank in range(4)
    }
    shown = contexts(1).filter(pl.col("kind").is_in(["top", "sampled"]))["document_id"]
    assert not {task.document_id for task in tasks} & set(shown)


def test_a_held_out_document_that_was_shown_is_refused() -> None:
    leaky = contexts(1).with_columns(document_id=pl.format("d{}", "rank_in_kind"))
    with pytest.raises(ValueError, match="shown to the labeller"):
        score_requests(labels("ok"), leaky, CONFIG, llm=REMOTE)


@pytest.mark.parametrize(
    ("yes", "auroc", "balanced"),
    [
        (lambda task: 0.9 if task.is_positive else 0.2, 1.0, 1.0),
        (lambda task: 0.3 if task.is_positive else 0.2, 1.0, 0.5),
        (lambda task: 0.7, 0.5, 0.5),
        (lambda task: 0.1 if task.is_positive else 0.8, 0.0, 0.0),
    ],
)
def test_scores_of_known_judges(
    yes: Callable[[ScoreTask], float], auroc: float, balanced: float
) -> None:
    frame = labels("ok")
    tasks = score_requests(frame, contexts(1), CONFIG, llm=REMOTE)
    rows = label_score_rows(tasks, judge(tasks, yes), frame, CONFIG, llm=REMOTE)
    LABEL_SCORES.conform(rows, PARTITION)
    row = rows.row(0, named=True)
    assert (row["auroc"], row["balanced_accuracy"], row["status"]) == (auroc, balanced, "ok")
    assert (row["n_positive"], row["n_negative"], row["n_failed"]) == (4, 4, 0)


def choose(tasks: list[ScoreTask], wins: Callable[[ScoreTask], bool]) -> list[ChatReply]:
    texts = [json.dumps({"label": t.label if wins(t) else t.foil}) for t in tasks]
    return [
        ChatReply(task.request, "h", "m", "ok", text=text)
        for task, text in zip(tasks, texts, strict=True)
    ]


def test_forced_choice_offers_the_label_and_another_features() -> None:
    frame = labels("ok", "ok", "ok").with_columns(
        label=pl.when(pl.col("label").is_not_null()).then(pl.format("topic {}", "feature_id"))
    )
    tasks = score_requests(frame, contexts(3), CONFIG, llm=EMBEDDED)
    assert len(tasks) == 3 * 8
    for task in tasks:
        assert task.request.json_schema is not None
        offered = task.request.json_schema["properties"]["label"]["enum"]
        assert offered == [task.label, task.foil] and task.foil != task.label
        assert task.foil in {"topic 0", "topic 1", "topic 2"}
        assert task.label not in task.request.messages[-1]["content"]
    # The same foils on both sides: a judge that only likes some labels scores 0.5.
    likes = choose(tasks, lambda task: task.label < str(task.foil))
    blind = label_score_rows(tasks, likes, frame, CONFIG, llm=EMBEDDED)
    assert blind["auroc"].to_list() == [0.5] * 3
    assert blind["balanced_accuracy"].to_list() == [0.5] * 3
    replies = choose(tasks, lambda task: task.is_positive)
    good = label_score_rows(tasks, replies, frame, CONFIG, llm=EMBEDDED)
    assert good["auroc"].to_list() == [1.0] * 3
    assert set(good["method"]) == {"detection_choice"}
    LABEL_SCORES.conform(good, PARTITION)


def test_more_foils_grade_the_choice_and_count_contexts_once() -> None:
    config = CONFIG.model_copy(update={"n_foils": 4})
    frame = labels("ok")
    tasks = score_requests(frame, contexts(1), config, llm=EMBEDDED)
    assert len(tasks) == 8 * 4
    assert len({task.foil for task in tasks if task.document_id == "held_out-0"}) == 4
    replies = choose(tasks, lambda task: task.is_positive)
    row = label_score_rows(tasks, replies, frame, config, llm=EMBEDDED).row(0, named=True)
    assert (row["n_positive"], row["n_negative"], row["auroc"]) == (4, 4, 1.0)


def test_failed_calls_are_counted_not_scored() -> None:
    frame = labels("ok", "ok", "none")
    tasks = score_requests(frame, contexts(2), CONFIG, llm=REMOTE)
    first = next(task for task in tasks if task.feature_id == 0 and task.is_positive)

    def yes(task: ScoreTask) -> float | None:
        if (task.feature_id == 1 and task.is_positive) or task is first:
            return None
        return 0.9 if task.is_positive else 0.1

    rows = label_score_rows(tasks, judge(tasks, yes), frame, CONFIG, llm=REMOTE)
    LABEL_SCORES.conform(rows, PARTITION)
    some, all_failed, unlabelled = rows.iter_rows(named=True)
    # The mean over completed answers is what it is without the failure.
    assert (some["status"], some["n_failed"], some["auroc"]) == ("partial", 1, 1.0)
    assert (all_failed["status"], all_failed["auroc"], all_failed["n_failed"]) == (
        "failed",
        None,
        4,
    )
    assert unlabelled["status"] == "not_attempted" and "none" in unlabelled["reason"]


def test_a_judge_that_knows_nothing_scores_half_on_average() -> None:
    frame, generator = labels(*["ok"] * 200), np.random.default_rng(0)
    tasks = score_requests(frame, contexts(200), CONFIG, llm=REMOTE)
    rows = label_score_rows(
        tasks, judge(tasks, lambda task: generator.random()), frame, CONFIG, llm=REMOTE
    )
    assert float(rows["auroc"].mean()) == pytest.approx(0.5, abs=0.05)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("logprobs", "text", "expected"),
    [
        ({"Yes": math.log(0.2), " yes": math.log(0.1), "No": math.log(0.3)}, "No", 0.5),
        ({"No": math.log(0.3), "The": -1.0}, "No", 0.0),
        ({}, "Yes, it does.", 1.0),
        ({}, "no", 0.0),
        ({}, "perhaps", None),
        ({"The": -0.1}, "", None),
    ],
)
def test_probability_of_yes(logprobs: dict[str, float], text: str, expected: float | None) -> None:
    request = ChatRequest("p", "v", ({"role": "user", "content": "?"},))
    reply = ChatReply(request, "h", "m", "ok", text=text, first_token_logprobs=logprobs)
    assert probability_of_yes(reply) == (None if expected is None else pytest.approx(expected))
    failed = ChatReply(request, "h", "m", "failed", text="Yes", reason="timeout")
    assert probability_of_yes(failed) is None
