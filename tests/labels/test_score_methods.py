"""Fuzzing, simulation, hard negatives, the shuffled control and intervals of label scores."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import pytest

from assets.labels.asked_texts import skipped_contexts
from assets.labels.config import LabelsConfig
from assets.labels.label_scores import label_score_rows
from assets.labels.score_questions import ScoreTask, score_requests
from assets.labels.score_summary import score_summary
from assets.labels.tables import LABEL_SCORES
from assets.labels.telling_apart import auroc, score_intervals
from assets.shared.chat import ChatReply
from assets.shared.small_sample_intervals import auroc_interval, mean_rate_interval
from tests.labels.planted_judges import (
    CONFIG,
    EMBEDDED,
    FULL,
    PARTITION,
    REMOTE,
    contexts,
    judge,
    named,
    scored,
    truth,
)


def test_a_true_label_scores_1_and_a_shuffled_one_as_chance() -> None:
    _, rows = scored(FULL, truth)
    own, shuffled = rows.filter(~pl.col("is_shuffled")), rows.filter("is_shuffled")
    assert len(own) == 10 * 2 * 2 and set(own["auroc"]) == {1.0}
    # Every score has a null of its own: by method and by sort of negatives.
    assert len(shuffled) == 5 * 2 * 2 and set(shuffled["auroc"]) == {0.5}
    assert set(shuffled["negatives"]) == {"random", "hard"}
    for row in shuffled.iter_rows(named=True):
        assert row["judged_label"] in {f"topic {i}" for i in range(10)} - {
            f"topic {row['feature_id']}"
        }
    summary = score_summary(rows)
    assert summary["mean_auroc_detection_random"] == 1.0
    assert summary["mean_auroc_fuzzing_hard_shuffled"] == 0.5


def test_a_vague_label_is_told_by_hard_negatives() -> None:
    # It fits every text in which the feature or a similar one fires.
    _, rows = scored(FULL, lambda task: 0.1 if task.sample == "random" else 0.9)
    own = rows.filter(~pl.col("is_shuffled"))
    assert set(own.filter(negatives="random")["auroc"]) == {1.0}
    assert set(own.filter(negatives="hard")["auroc"]) == {0.5}
    assert set(own.filter(negatives="hard")["balanced_accuracy"]) == {0.5}


def test_rows_name_their_calls_and_positives_are_asked_once() -> None:
    tasks, _ = scored(FULL, truth)
    frame = named(1)
    one = [t for t in tasks if t.scored.feature_id == 0 and not t.scored.is_shuffled]
    assert len(one) == 2 * 3 * 4
    replies = [ChatReply(t.request, f"h{i}", "m", "ok", text="Yes") for i, t in enumerate(one)]
    rows = label_score_rows(one, replies, frame, FULL, llm=REMOTE)
    assert rows["request_hashes"].list.len().to_list() == [8] * 4
    for row in rows.iter_rows(named=True):
        wanted = {"positive", row["negatives"]}
        assert row["request_hashes"] == [
            f"h{i}"
            for i, task in enumerate(one)
            if task.method == row["method"] and task.sample in wanted
        ]


def test_without_contexts_of_a_sort_a_row_says_so() -> None:
    frame, few = named(2), contexts(2).filter(pl.col("kind") != "hard_negative")
    tasks = score_requests(frame, few, FULL, llm=REMOTE)
    rows = label_score_rows(tasks, judge(tasks, truth), frame, FULL, llm=REMOTE)
    hard = rows.filter(negatives="hard")
    assert set(hard["status"]) == {"not_attempted"} and hard["auroc"].null_count() == len(hard)
    assert set(hard["reason"]) == {"no hard negatives to judge"}
    assert set(rows.filter(negatives="random")["status"]) == {"ok"}


def test_fuzzing_marks_one_word_in_every_sort() -> None:
    """One word, though another is as active as the peak: their number tells no sort apart."""
    config = FULL.model_copy(update={"score_methods": ("fuzzing",)})
    dense = contexts(4).with_columns(
        window_coefficients=pl.when(kind="held_out")
        .then(pl.lit([0.0, 1.0, 1.0, 0.1]))
        .otherwise("window_coefficients")
    )
    tasks = score_requests(named(4), dense, config, llm=REMOTE)
    of_first = [t for t in tasks if t.scored.feature_id == 0 and not t.scored.is_shuffled]
    assert Counter(t.sample for t in of_first) == {"positive": 4, "random": 4, "hard": 4}
    for task in of_first:
        line = task.request.messages[-1]["content"].splitlines()[1]
        assert line.count("«") == line.count("»") == 1
        assert ("«w»" in line) == (task.sample != "random")
        assert task.document_id.startswith("hard" if task.sample == "hard" else "held_out")


def test_contexts_that_fuzzing_cannot_mark_are_counted() -> None:
    silent = (pl.col("kind") == "held_out") & (pl.col("rank_in_kind") == 0)
    few = contexts(2).with_columns(
        window_coefficients=pl.when(silent).then(pl.lit([0.0] * 4)).otherwise("window_coefficients")
    )
    frame = named(2)
    tasks = score_requests(frame, few, FULL, llm=REMOTE)
    skipped = skipped_contexts(frame, few, FULL, llm=REMOTE)
    replies = judge(tasks, truth)
    rows = label_score_rows(tasks, replies, frame, FULL, llm=REMOTE, skipped=skipped)
    LABEL_SCORES.conform(rows, PARTITION)
    said = rows.filter(~pl.col("is_shuffled"), feature_id=0)
    for row in said.iter_rows(named=True):
        is_fuzzing = row["method"] == "fuzzing"
        assert (row["status"], row["auroc"], row["n_failed"]) == ("ok", 1.0, 0)
        assert row["n_positive"] == (3 if is_fuzzing else 4)
        n_negative = 1 if row["negatives"] == "random" else 0
        found = f"1 held-out contexts and {n_negative} {row['negatives']} negatives"
        assert row["reason"] == (
            f"without a word to mark, left out: {found}" if is_fuzzing else None
        )


def test_simulation_correlates_ratings_with_coefficients() -> None:
    config = FULL.model_copy(update={"score_methods": ("simulation",)})

    def rated(tasks: Sequence[ScoreTask], rating: Callable[[float], float]) -> list[ChatReply]:
        """Replies whose expected rating is `rating` of the coefficient."""
        replies = []
        for task in tasks:
            p = rating(task.coefficient or 0.0) / 9
            logprobs = {"9": math.log(p + 1e-12), "0": math.log(1 - p + 1e-12)}
            reply = ChatReply(task.request, "h", "m", "ok", first_token_logprobs=logprobs)
            replies.append(reply)
        return replies

    frame = named(4)
    tasks = score_requests(frame, contexts(4), config, llm=REMOTE)
    # Four contexts of each sort, four words each; shuffled for half of the features.
    assert len(tasks) == (4 + 2) * 2 * 4 * 4
    good = label_score_rows(tasks, rated(tasks, lambda c: 1 + 7 * c), frame, config, llm=REMOTE)
    LABEL_SCORES.conform(good, PARTITION)
    assert good["correlation"].to_list() == pytest.approx([1.0] * 6)
    # Without a spread there is no interval.
    assert good["correlation_low"].null_count() == good["correlation_high"].null_count() == 6
    assert set(good["method"]) == {"simulation"} and good["auroc"].null_count() == 6
    bad = label_score_rows(tasks, rated(tasks, lambda c: 8 - 7 * c), frame, config, llm=REMOTE)
    assert bad["correlation"].to_list() == pytest.approx([-1.0] * 6)
    ends = []
    for confidence in (0.8, 0.95):
        of_study = config.model_copy(update={"confidence": confidence})
        draws = np.random.default_rng(0)
        noisy = rated(tasks, lambda c, draws=draws: 1 + 4 * c + float(draws.uniform(0, 4)))
        rows = label_score_rows(tasks, noisy, frame, of_study, llm=REMOTE)
        ends.append(rows.select("correlation_low", "correlation_high").rows())
    assert all(is_inside(*one) for one in zip(*ends, strict=True))
    flat = label_score_rows(tasks, rated(tasks, lambda _: 3.0), frame, config, llm=REMOTE)
    assert set(flat["status"]) == {"undefined"} and flat["correlation"].null_count() == 6


@pytest.mark.parametrize(
    ("score", "true"),
    [("auroc", 0.7602), ("balanced_accuracy", 0.6915)],  # Φ(1/√2), Φ(1/2)
)
@pytest.mark.parametrize("n", [4, 10])
def test_the_interval_of_a_score_covers_the_true_one(n: int, score: str, true: float) -> None:
    generator, covered = np.random.default_rng(0), []
    for _ in range(800):
        # Both half a deviation from 0.5, above which an answer means fit.
        positive, negative = generator.normal(1, 1, n), generator.normal(0, 1, n)
        low, high = getattr(score_intervals(positive, negative, 0.95), score)
        covered.append(low <= true <= high)
    assert 0.92 <= np.mean(covered) <= 0.985


def is_inside(narrow: Sequence[float], wide: Sequence[float]) -> bool:
    return wide[0] < narrow[0] < narrow[1] < wide[1]


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_intervals_are_those_of_small_samples_at_their_confidence(confidence: float) -> None:
    generator = np.random.default_rng(0)
    positive, negative = generator.normal(1, 1, 6), generator.normal(0, 1, 4)
    found = score_intervals(positive, negative, confidence)
    assert found.auroc == auroc_interval(auroc(positive, negative), 6, 4, confidence)
    n_right = int((positive > 0.5).sum()), int((negative <= 0.5).sum())
    assert found.balanced_accuracy == mean_rate_interval(n_right, (6, 4), confidence)
    wider = score_intervals(positive, negative, 0.99)
    assert all(is_inside(one, wide) for one, wide in zip(found, wider, strict=True))


def test_rows_have_intervals_of_the_studys_confidence() -> None:
    rows = {}
    for confidence in (0.8, 0.95):
        config = CONFIG.model_copy(update={"confidence": confidence})
        generator = np.random.default_rng(0)
        _, found = scored(config, lambda _, draws=generator: 0.2 + 0.6 * float(draws.random()))
        rows[confidence] = found.to_dicts()
        for row in rows[confidence]:
            ends = auroc_interval(row["auroc"], 4, 4, confidence)
            assert (row["auroc_low"], row["auroc_high"]) == ends
    assert len(rows[0.8]) == 10
    for narrow, wide in zip(rows[0.8], rows[0.95], strict=True):
        assert 0 < narrow["auroc"] < 1 and narrow["auroc"] == wide["auroc"]
        for score in ("auroc", "balanced_accuracy"):
            ends = [(row[f"{score}_low"], row[f"{score}_high"]) for row in (narrow, wide)]
            assert is_inside(*ends)


@pytest.mark.parametrize("score", ["auroc", "balanced_accuracy"])
def test_intervals_hold_the_score_and_have_a_width_without_a_fault_too(score: str) -> None:
    generator = np.random.default_rng(0)
    for answer in (lambda _: float(generator.random()), truth):
        _, rows = scored(CONFIG, answer)
        assert (rows[f"{score}_low"] <= rows[score]).all()
        assert (rows[score] <= rows[f"{score}_high"]).all()
        assert (rows[f"{score}_high"] - rows[f"{score}_low"] > 0.2).all()
    assert set(rows[f"{score}_high"]) == {1.0}


def test_the_embedded_llm_takes_at_most_9_calls_for_4_of_detection_without_controls() -> None:
    """Three sorts of contexts for two, and half as many again by shuffled labels.

    One call a label beside them, without a context.
    """
    for n in (1, 2, 3, 6, 9):
        alone = score_requests(
            named(n), contexts(n), CONFIG.model_copy(update={"n_held_out": 3}), llm=EMBEDDED
        )
        default = score_requests(named(n), contexts(n), LabelsConfig(n_held_out=3), llm=EMBEDDED)
        assert len(alone) == 6 * n + n
        assert 4 * len(default) <= 9 * len(alone)
