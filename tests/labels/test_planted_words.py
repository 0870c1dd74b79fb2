"""Judges that know what labels mean, over texts in which each feature is active at one word."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from assets.labels.config import LabelsConfig
from assets.labels.label_scores import label_score_rows
from assets.labels.score_questions import ScoreTask, score_requests
from assets.labels.tables import LABEL_SCORES
from assets.shared.chat import ChatReply
from tests.labels.planted_judges import EMBEDDED, FULL, PARTITION, REMOTE, judge, named

N_FEATURES, N_CONTEXTS = 12, 5
WORDS = [f"word{i}" for i in range(N_FEATURES)]


def contexts() -> pl.DataFrame:
    """Texts of every word once, in drawn order; those without a feature lack its word.

    A feature is active at its own word only, more or less; the one half a circle on is similar.
    """
    generator = np.random.default_rng(0)
    rows = []
    for feature in range(N_FEATURES):
        similar = (feature + N_FEATURES // 2) % N_FEATURES
        for kind in ("held_out", "negative", "hard_negative"):
            for rank in range(N_CONTEXTS):
                there = [i for i in range(N_FEATURES) if kind == "held_out" or i != feature]
                order = generator.permutation(there).tolist()
                strength = float(generator.uniform(0.5, 2.0))
                peak = {"held_out": feature, "hard_negative": similar, "negative": order[0]}[kind]
                tokens = [f" {WORDS[i]}" for i in order]
                text = "".join(tokens)
                # A blank at both ends: word1 begins word10.
                marked = f"{text} ".replace(f" {WORDS[peak]} ", f" «{WORDS[peak]}» ")[:-1]
                rows.append(
                    {
                        "feature_id": feature,
                        "kind": kind,
                        "rank_in_kind": rank,
                        "document_id": f"{kind}-{rank}",
                        "peak_token": WORDS[peak],
                        "text": text,
                        "marked_text": marked,
                        "window_tokens": tokens,
                        "window_coefficients": [strength * (i == feature) for i in order],
                    }
                )
    return pl.DataFrame(rows)


def meant_by(task: ScoreTask) -> int:
    """The feature whose word a label means; labels are `topic <feature>`."""
    return int(task.scored.label.removeprefix("topic "))


def marked_word(task: ScoreTask) -> str:
    (word,) = re.findall("«(.*?)»", task.request.messages[-1]["content"])
    return word


def rated(tasks: list[ScoreTask], rating: Callable[[ScoreTask], float]) -> list[ChatReply]:
    """Replies whose expected digit is `rating`."""
    replies = []
    for task in tasks:
        p = rating(task) / 9
        logprobs = {"9": math.log(p + 1e-300), "0": math.log(1 - p + 1e-300)}
        replies.append(ChatReply(task.request, "h", "m", "ok", first_token_logprobs=logprobs))
    return replies


def simulated(rating: Callable[[ScoreTask], float]) -> pl.DataFrame:
    config = FULL.model_copy(update={"score_methods": ("simulation",), "n_held_out": N_CONTEXTS})
    frame = named(N_FEATURES)
    tasks = score_requests(frame, contexts(), config, llm=REMOTE)
    rows = label_score_rows(tasks, rated(tasks, rating), frame, config, llm=REMOTE)
    LABEL_SCORES.conform(rows, PARTITION)
    return rows


def test_a_perfect_simulator_scores_1_and_by_another_features_label_0() -> None:
    def by_meaning(task: ScoreTask) -> float:
        is_meant = marked_word(task) == WORDS[meant_by(task)]
        # Of its own label it knows the strength, too.
        return 0.5 + 4 * (task.coefficient or 1.0) * is_meant

    rows = simulated(by_meaning)
    own, shuffled = rows.filter(~pl.col("is_shuffled")), rows.filter("is_shuffled")
    assert len(own) == N_FEATURES and len(shuffled) == N_FEATURES // 2
    assert own["correlation"].to_list() == pytest.approx([1.0] * N_FEATURES)
    assert set(rows["status"]) == {"ok"}
    # The word meant is never the one that is active: a shade below 0.
    assert shuffled["correlation"].to_list() == pytest.approx([0.0] * (N_FEATURES // 2), abs=0.15)
    for row in rows.iter_rows(named=True):
        if row["is_shuffled"]:
            assert row["correlation_low"] < row["correlation"] < row["correlation_high"]
        else:
            assert row["correlation_low"] is None, "without an error there is no spread to see"


@pytest.mark.parametrize("noise", [0.0, 1e-9])
def test_a_constant_simulator_gets_a_reason_though_its_digits_differ(noise: float) -> None:
    generator = np.random.default_rng(0)
    rows = simulated(lambda _: 3.0 + noise * float(generator.random()))
    assert set(rows["status"]) == {"undefined"}
    n_words = N_CONTEXTS * (2 * N_FEATURES - 1)
    assert set(rows["reason"]) == {f"all {n_words} ratings are equal: a correlation is undefined"}
    for name in ("correlation", "correlation_low", "correlation_high"):
        assert rows[name].null_count() == len(rows)


def test_a_simulator_without_any_rating_failed() -> None:
    config = FULL.model_copy(update={"score_methods": ("simulation",)})
    frame = named(2)
    tasks = score_requests(frame, contexts(), config, llm=REMOTE)
    replies = [
        ChatReply(task.request, "h", "m", "ok", first_token_logprobs={"It": -0.01, "3": -9.0})
        for task in tasks
    ]
    rows = label_score_rows(tasks, replies, frame, config, llm=REMOTE)
    assert set(rows["status"]) == {"failed"} and set(rows["reason"]) == {"no word got a rating"}
    assert set(rows["n_failed"]) == {8} and rows["correlation"].null_count() == len(rows)


def test_a_judge_that_knows_the_words_fuzzes_without_a_fault() -> None:
    config: LabelsConfig = FULL.model_copy(
        update={"score_methods": ("fuzzing",), "n_held_out": N_CONTEXTS}
    )
    frame = named(N_FEATURES)
    tasks = score_requests(frame, contexts(), config, llm=REMOTE)
    replies = judge(tasks, lambda t: 0.9 if marked_word(t) == WORDS[meant_by(t)] else 0.1)
    rows = label_score_rows(tasks, replies, frame, config, llm=REMOTE)
    LABEL_SCORES.conform(rows, PARTITION)
    own, shuffled = rows.filter(~pl.col("is_shuffled")), rows.filter("is_shuffled")
    assert len(own) == 2 * N_FEATURES and len(shuffled) == N_FEATURES
    assert set(own["balanced_accuracy"]) == {1.0} and set(own["auroc"]) == {1.0}
    assert max(shuffled["balanced_accuracy"]) <= 0.5 and max(shuffled["auroc"]) <= 0.5
    # The marks: on the feature's word; on another word of the same text; on the similar one's.
    for task in tasks:
        feature, word = task.scored.feature_id, marked_word(task)
        own_word, similar = WORDS[feature], WORDS[(feature + N_FEATURES // 2) % N_FEATURES]
        is_hard = task.sample == "hard"
        assert task.document_id.startswith("hard_negative" if is_hard else "held_out")
        assert (word == own_word) == (task.sample == "positive")
        assert not is_hard or word == similar


def by_likelihood(
    logprob: Callable[[ScoreTask], float | None], prior: Callable[[str], float | None]
) -> tuple[list[ScoreTask], pl.DataFrame]:
    """Scores by a judge with these log-probabilities of a forced label, with and without text."""
    config = FULL.model_copy(
        update={
            "score_methods": ("fuzzing", "simulation"),
            "n_held_out": N_CONTEXTS,
            "judge_style": "likelihood",
        }
    )
    frame = named(N_FEATURES)
    tasks = score_requests(frame, contexts(), config, llm=EMBEDDED)
    replies = []
    for task in tasks:
        p = prior(task.scored.label) if task.sample == "prior" else logprob(task)
        replies.append(ChatReply(task.request, task.sample, "m", "ok", answer_logprob=p))
    rows = label_score_rows(tasks, replies, frame, config, llm=EMBEDDED)
    LABEL_SCORES.conform(rows, PARTITION)
    return tasks, rows


def liked(label: str) -> float:
    """How probable a label is anyway: very different for each."""
    return -10.0 - 3 * int(label.removeprefix("topic "))


def knowing(task: ScoreTask) -> float:
    is_meant = marked_word(task) == WORDS[meant_by(task)]
    return liked(task.scored.label) + (2.0 if is_meant else -0.5)


def test_by_likelihood_it_counts_what_the_word_adds_to_a_label_liked_or_not() -> None:
    tasks, rows = by_likelihood(knowing, liked)
    assert set(rows["method"]) == {"fuzzing_likelihood", "simulation_likelihood"}
    own, shuffled = rows.filter(~pl.col("is_shuffled")), rows.filter("is_shuffled")
    told = own.filter(method="fuzzing_likelihood")
    assert set(told["balanced_accuracy"]) == {1.0} and set(told["auroc"]) == {1.0}
    assert set(told["n_positive"]) == {N_CONTEXTS} and set(told["n_failed"]) == {0}
    assert max(shuffled["auroc"].drop_nulls()) <= 0.5
    rated = own.filter(method="simulation_likelihood")
    # The strengths it does not know.
    assert min(rated["correlation"]) > 0.8
    of_others = shuffled.filter(method="simulation_likelihood")["correlation"]
    assert max(map(abs, of_others)) < 0.15
    # Without a text once a label, however many rows it stands in; nothing else may be said.
    priors = [task for task in tasks if task.sample == "prior"]
    assert sorted(task.scored.label for task in priors) == sorted(
        f"topic {i}" for i in range(N_FEATURES)
    )
    for task in tasks:
        assert task.request.wants_answer_logprob and task.request.json_schema is not None
        assert task.request.json_schema["properties"]["label"]["enum"] == [task.scored.label]
    assert all(row["request_hashes"][-1] == "prior" for row in told.iter_rows(named=True))


def test_where_the_schema_makes_a_label_certain_no_row_is_scored() -> None:
    _, rows = by_likelihood(lambda _: -1e-9, lambda _: 0.0)
    assert set(rows["status"]) == {"failed"}
    for name in ("auroc", "balanced_accuracy", "correlation"):
        assert rows[name].null_count() == len(rows)


def test_without_the_answer_to_no_text_nothing_says_whether_a_word_fits() -> None:
    _, rows = by_likelihood(knowing, lambda label: None if label == "topic 3" else liked(label))
    is_of_3 = (pl.col("judged_label") == "topic 3") & (pl.col("method") == "fuzzing_likelihood")
    assert set(rows.filter(is_of_3)["status"]) == {"failed"}
    assert set(rows.filter(~is_of_3)["status"]) == {"ok"}
