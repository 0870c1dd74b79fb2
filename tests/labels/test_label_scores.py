"""Label scores: what the judge is asked, and what its answers are worth."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from assets.labels.label_scores import label_score_rows
from assets.labels.score_questions import ScoreTask, score_requests
from assets.labels.tables import LABEL_SCORES
from assets.shared.chat import ChatReply
from tests.labels.planted_judges import (
    CONFIG,
    EMBEDDED,
    PARTITION,
    REMOTE,
    contexts,
    judge,
    labels,
    named,
)


def test_the_judge_sees_held_out_and_negative_contexts_unmarked() -> None:
    tasks = score_requests(labels("ok", "failed"), contexts(2), CONFIG, llm=REMOTE)
    assert [task.scored.feature_id for task in tasks] == [0] * 8
    assert sum(task.is_positive for task in tasks) == 4
    texts = [task.request.messages[-1]["content"] for task in tasks]
    assert all("days" in text and "«" not in text for text in texts)
    assert {task.document_id for task in tasks} == {
        f"{kind}-{rank}" for kind in ("held_out", "negative") for rank in range(4)
    }
    shown = contexts(1).filter(pl.col("kind").is_in(["top", "sampled", "near_miss"]))["document_id"]
    assert not {task.document_id for task in tasks} & set(shown)


@pytest.mark.parametrize("shown", ["top", "sampled", "near_miss"])
@pytest.mark.parametrize("kept", ["held_out", "negative", "hard_negative"])
def test_a_document_that_was_shown_and_kept_is_refused(shown: str, kept: str) -> None:
    is_of = pl.col("kind").is_in([shown, kept])
    leak = pl.when(is_of).then(pl.lit("d")).otherwise("document_id")
    leaky = contexts(1).with_columns(document_id=leak)
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


CHOICE = CONFIG.model_copy(update={"judge_style": "choice"})


def choose(tasks: list[ScoreTask], wins: Callable[[ScoreTask], bool]) -> list[ChatReply]:
    texts = [json.dumps({"label": t.scored.label if wins(t) else t.foil}) for t in tasks]
    return [
        ChatReply(task.request, "h", "m", "ok", text=text)
        for task, text in zip(tasks, texts, strict=True)
    ]


def test_forced_choice_offers_the_label_and_another_features() -> None:
    frame = named(3)
    tasks = score_requests(frame, contexts(3), CHOICE, llm=EMBEDDED)
    assert len(tasks) == 3 * 8
    for task in tasks:
        assert task.request.json_schema is not None
        offered = task.request.json_schema["properties"]["label"]["enum"]
        assert offered == [task.scored.label, task.foil] and task.foil != task.scored.label
        assert task.foil in {"topic 0", "topic 1", "topic 2"}
        assert task.scored.label not in task.request.messages[-1]["content"]
    # The same foils on both sides: a judge that only likes some labels scores 0.5.
    likes = choose(tasks, lambda task: task.scored.label < str(task.foil))
    blind = label_score_rows(tasks, likes, frame, CHOICE, llm=EMBEDDED)
    assert blind["auroc"].to_list() == [0.5] * 3
    assert blind["balanced_accuracy"].to_list() == [0.5] * 3
    replies = choose(tasks, lambda task: task.is_positive)
    good = label_score_rows(tasks, replies, frame, CHOICE, llm=EMBEDDED)
    assert good["auroc"].to_list() == [1.0] * 3
    assert set(good["method"]) == {"detection_choice"}
    LABEL_SCORES.conform(good, PARTITION)


def test_more_foils_grade_the_choice_and_count_contexts_once() -> None:
    config = CHOICE.model_copy(update={"n_foils": 4})
    frame = labels("ok")
    tasks = score_requests(frame, contexts(1), config, llm=EMBEDDED)
    assert len(tasks) == 8 * 4
    assert len({task.foil for task in tasks if task.document_id == "held_out-0"}) == 4
    replies = choose(tasks, lambda task: task.is_positive)
    row = label_score_rows(tasks, replies, frame, config, llm=EMBEDDED).row(0, named=True)
    assert (row["n_positive"], row["n_negative"], row["auroc"]) == (4, 4, 1.0)


def test_a_context_counts_only_where_every_foil_was_answered() -> None:
    """A judge that answers by the foil alone would else tell every context."""
    config = CHOICE.model_copy(update={"n_foils": 2})
    frame = labels("ok")
    tasks = score_requests(frame, contexts(1), config, llm=EMBEDDED)
    seen: Counter[str] = Counter()
    replies = []
    for task in tasks:
        is_answered = seen[task.document_id] == int(not task.is_positive)
        seen[task.document_id] += 1
        text = json.dumps({"label": task.scored.label if task.is_positive else task.foil})
        status = "ok" if is_answered else "failed"
        replies.append(ChatReply(task.request, "h", "m", status, text=text, reason="timeout"))
    row = label_score_rows(tasks, replies, frame, config, llm=EMBEDDED).row(0, named=True)
    assert (row["status"], row["auroc"], row["n_failed"]) == ("failed", None, 8)
    # One context answered in part beside whole ones: the score is of the whole ones.
    whole = choose(tasks, lambda task: task.is_positive)
    whole[0] = ChatReply(tasks[0].request, "h", "m", "failed", reason="timeout")
    row = label_score_rows(tasks, whole, frame, config, llm=EMBEDDED).row(0, named=True)
    assert (row["status"], row["n_positive"], row["n_failed"]) == ("partial", 3, 1)


def test_failed_calls_are_counted_not_scored() -> None:
    frame = labels("ok", "ok", "none")
    tasks = score_requests(frame, contexts(2), CONFIG, llm=REMOTE)
    first = next(task for task in tasks if task.scored.feature_id == 0 and task.is_positive)

    def yes(task: ScoreTask) -> float | None:
        if (task.scored.feature_id == 1 and task.is_positive) or task is first:
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
