"""Probe sentences: requests, rows, scores and what failures do to them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import pytest
import torch

from assets.detection.config import DetectionConfig
from assets.detection.neutral_sentences import NEUTRAL_SENTENCES
from assets.detection.probe_scores import score_probes
from assets.detection.probe_sentences import (
    NotProbed,
    ProbeTask,
    features_not_probed,
    generated_concept_rows,
    labels_to_probe,
    probe_requests,
    probe_sentence_rows,
)
from assets.detection.site_scores import SentenceScores
from assets.detection.tables import CONCEPT_DETECTION, PROBE_SENTENCES
from assets.labels.chosen_labels import ChosenLabel, chosen_labels
from assets.shared.chat import ChatReply

CONFIG = DetectionConfig(n_activating=3, n_neutral=4)
PARTITION = {"site": "demo:m@L01.mlp_hidden", "fit": "snmf-k064"}
LABELS = {0: "days", 2: "colours"}
BEYOND = NotProbed("not_attempted", "beyond max_features=2")
NOT_PROBED = {1: BEYOND}


def test_the_strongest_features_with_a_label_are_probed() -> None:
    chosen = {i: ChosenLabel(f"label {i}", "input") for i in (1, 2, 3)}
    chosen[4] = ChosenLabel(None, None, "no label: the feature has no evidence")
    # 9 is of no row of `labels`; 4 has no label, and takes nobody's place.
    assert labels_to_probe(chosen, [4, 3, 9, 1, 2], 2) == {3: "label 3", 1: "label 1"}
    assert list(labels_to_probe(chosen, [4, 3, 9, 1, 2], None)) == [3, 1, 2]
    assert labels_to_probe(chosen, [3], 0) == {}


def test_a_failed_label_moves_no_other_feature_up() -> None:
    chosen = {i: ChosenLabel(f"label {i}", "input") for i in (1, 2, 3)}
    whole = labels_to_probe(chosen, [3, 1, 2], 2)
    chosen[3] = ChosenLabel(None, None, "no input label: failed, timeout", is_failed=True)
    found = labels_to_probe(chosen, [3, 1, 2], 2)
    assert found == {1: "label 1"} and found.items() <= whole.items()


def test_without_a_label_is_told_from_beyond_the_cap() -> None:
    chosen = {i: ChosenLabel(f"label {i}", "input") for i in (1, 2)}
    failed = ChosenLabel(None, "input", "no input label: failed, timeout", is_failed=True)
    chosen |= {3: failed, 6: failed} | {
        i: ChosenLabel(None, "input", f"no input label: none, {i}") for i in (4, 5)
    }
    order = [4, 3, 1, 5, 2, 6]
    found = features_not_probed(chosen, order, 2, BEYOND.reason)
    # 3 and 1 take the two places; 4 is passed over on the way, 5 and 6 would not be come to.
    assert found == {
        **dict.fromkeys((2, 5, 6), BEYOND),
        3: NotProbed("no_label", "no input label: failed, timeout"),
        4: NotProbed("no_label", "no input label: none, 4"),
    }
    whole = features_not_probed(chosen, order, None, "")
    assert set(whole) == {3, 4, 5, 6} and {one.status for one in whole.values()} == {"no_label"}
    # One that never fires has no place in the order, and no label.
    assert features_not_probed({4: chosen[4]}, [], 0, "")[4].status == "no_label"
    for limit in (0, 1, 2, 3, 9, None):
        probed = labels_to_probe(chosen, order, limit)
        left = features_not_probed(chosen, order, limit, BEYOND.reason)
        assert not probed.keys() & left.keys() and probed.keys() | left.keys() == chosen.keys()


def count_words(sentences: Sequence[str]) -> list[int]:
    return [len(sentence.split()) for sentence in sentences]


def rows_of(
    tasks: Sequence[ProbeTask],
    replies: Sequence[ChatReply],
    not_probed: Mapping[int, NotProbed] | None = None,
    config: DetectionConfig = CONFIG,
) -> pl.DataFrame:
    return probe_sentence_rows(
        tasks,
        replies,
        config,
        label_kind="input",
        not_probed=not_probed or {},
        count_tokens=count_words,
    )


def write(task: ProbeTask, text: str | None = None, reason: str | None = None) -> ChatReply:
    text = text or f"Sentence {task.sentence_index} about {task.label}."
    status = "failed" if reason else "ok"
    request = task.request
    return ChatReply(request, request.request_hash("m"), "m", status, text=text, reason=reason)


def score(rows: pl.DataFrame, activating: float, neutral: float) -> pl.DataFrame:
    def scores_of(sentences: list[str]) -> SentenceScores:
        values = [activating if s.startswith("Sentence") else neutral for s in sentences]
        scores = np.array(values)[:, None] + np.linspace(0, 0.01, len(values))[:, None]
        norms = np.ones(len(values))
        return SentenceScores(scores.repeat(3, axis=1), norms, norms * np.nan, len(values))

    return score_probes(
        rows,
        PROBE_SENTENCES.empty(),
        torch.eye(3),
        [0, 1, 2],
        scores_of,
        made_with=["code"],
        massive_norm=5.0,
    ).rows


def test_every_sentence_is_its_own_request() -> None:
    tasks = probe_requests(LABELS, CONFIG)
    assert len({task.request.request_hash("m") for task in tasks}) == 6
    assert [task.request.seed for task in tasks] == [0, 1, 2] * 2
    assert all(task.label in task.request.messages[-1]["content"] for task in tasks)


def test_all_goes_well() -> None:
    tasks = probe_requests(LABELS, CONFIG)
    rows = rows_of(tasks, [write(t) for t in tasks], NOT_PROBED)
    rows = score(rows, 0.4, 0.1)
    PROBE_SENTENCES.conform(rows, PARTITION)
    assert len(rows) == 2 * (3 + 4) + 1
    assert rows.filter(pl.col("status") == "ok")["score"].null_count() == 0
    detected = generated_concept_rows(rows, LABELS, CONFIG)
    CONCEPT_DETECTION.conform(detected, PARTITION)
    by_feature = {row["feature_id"]: row for row in detected.iter_rows(named=True)}
    assert by_feature[0]["concept"] == "days" and by_feature[0]["status"] == "ok"
    assert (by_feature[0]["auroc"], by_feature[0]["n_negative"]) == (1.0, 4)
    assert by_feature[0]["s_cd"] == pytest.approx(math.log(4), abs=0.15)
    assert by_feature[1]["status"] == "not_attempted"
    assert by_feature[1]["reason"] == "beyond max_features=2"
    assert set(rows["label_kind"]) == set(detected["label_kind"]) == {"input"}


def test_a_refusal_in_prose_is_a_failed_sentence_and_an_apology_is_one() -> None:
    tasks = probe_requests(LABELS, CONFIG)
    replies = [write(task) for task in tasks]
    replies[0] = write(tasks[0], text="I'm sorry, but I can't help with that.")
    replies[1] = write(tasks[1], text="As an AI language model, I cannot write this.")
    replies[2] = write(tasks[2], text="I'm sorry I missed your call last night.")
    rows = rows_of(tasks, replies)
    failed = rows.filter(status="failed")
    assert failed["sentence_index"].to_list() == [0, 1] and failed["sentence"].null_count() == 2
    for reason, said in zip(failed["reason"], replies, strict=False):
        assert reason == f"refused in place of a sentence: {said.text!r}"
    assert replies[2].text in rows["sentence"].to_list()


def test_failed_and_repeated_sentences_are_rows_and_do_not_move_the_means() -> None:
    tasks = probe_requests(LABELS, CONFIG)
    replies = [write(task) for task in tasks]
    replies[1] = write(tasks[1], reason="timeout")
    replies[2] = write(tasks[2], text=str(replies[0].text).upper())
    replies[3] = write(tasks[3], text=" '' ")
    rows = rows_of(tasks, replies)
    rows = score(rows, 0.4, 0.1)
    PROBE_SENTENCES.conform(rows, PARTITION)
    failed = rows.filter(pl.col("status") == "failed")
    assert failed["reason"].to_list()[0] == "timeout"
    assert "again" in failed["reason"][1] and "no sentence" in failed["reason"][2]
    assert failed["sentence"].null_count() == failed["score"].null_count() == 3
    days, colours = generated_concept_rows(rows, LABELS, CONFIG).iter_rows(named=True)
    assert (days["status"], days["n_positive"]) == ("partial", 1)
    assert days["reason"].startswith("2 of 7 sentences failed: timeout")
    assert days["mean_positive"] == pytest.approx(0.4, abs=0.011)
    assert colours["n_positive"] == 2


def test_no_sentence_at_all_fails_the_feature() -> None:
    tasks = probe_requests({0: "days"}, CONFIG)
    replies = [write(task, reason="endpoint down") for task in tasks]
    rows = score(rows_of(tasks, replies), 0.4, 0.1)
    row = generated_concept_rows(rows, {0: "days"}, CONFIG).row(0, named=True)
    assert (row["status"], row["auroc"], row["n_positive"]) == ("failed", None, 0)
    assert "endpoint down" in row["reason"]


def test_a_mean_below_zero_leaves_s_cd_null() -> None:
    tasks = probe_requests({0: "days"}, CONFIG)
    rows = rows_of(tasks, [write(t) for t in tasks])
    row = generated_concept_rows(score(rows, 0.4, -0.1), {0: "days"}, CONFIG).row(0, named=True)
    assert (row["s_cd"], row["status"], row["auroc"]) == (None, "partial", 1.0)
    assert "s_cd" in row["reason"]


def test_an_unscored_sentence_fails() -> None:
    tasks = probe_requests({0: "days"}, CONFIG)
    rows = rows_of(tasks, [write(t) for t in tasks])
    scored = score(rows, math.nan, math.nan)
    PROBE_SENTENCES.conform(scored, PARTITION)
    assert set(scored["status"]) == {"failed"} and scored["score"].null_count() == len(scored)


def test_nothing_to_probe_is_an_empty_but_valid_table() -> None:
    rows = rows_of([], [])
    assert PROBE_SENTENCES.conform(rows, PARTITION).is_empty()
    assert score(rows, 0.4, 0.1).is_empty()
    assert CONCEPT_DETECTION.conform(generated_concept_rows(rows, {}, CONFIG), PARTITION).is_empty()


def test_a_label_that_is_none_or_failed_gets_no_sentences_but_a_row_with_the_reason() -> None:
    statuses = {1: "ok", 2: "none", 3: "failed"}
    labels = pl.DataFrame(
        [
            {"feature_id": i, "kind": kind, "label": label, "status": status, "reason": "why"}
            for i, of_input in statuses.items()
            for kind, label, status in (
                ("input", "days" if of_input == "ok" else None, of_input),
                ("output", "dates", "ok"),
                ("token_summary", "of, seven, lamp", "ok"),
            )
        ]
    )
    chosen = chosen_labels(labels, "input")
    probed = labels_to_probe(chosen, [3, 2, 1], None)
    assert probed == {1: "days"}
    left_out = features_not_probed(chosen, [3, 2, 1], None, "beyond no limit")
    tasks = probe_requests(probed, CONFIG)
    rows = score(rows_of(tasks, [write(task) for task in tasks], left_out), 0.4, 0.1)
    detected = generated_concept_rows(rows, probed, CONFIG)
    CONCEPT_DETECTION.conform(detected, PARTITION)
    said = {row["feature_id"]: (row["status"], row["reason"]) for row in detected.to_dicts()}
    assert said[1] == ("ok", None)
    assert said[2] == ("no_label", "no input label: none, why")
    assert said[3] == ("no_label", "no input label: failed, why")
    assert set(rows["label_kind"]) == set(detected["label_kind"]) == {"input"}
    assert rows.filter(pl.col("feature_id") != 1)["sentence"].null_count() == 2


def test_neutral_sentences_are_as_long_as_the_activating_ones() -> None:
    tasks = probe_requests(LABELS, CONFIG)
    texts = {0: "word " * 30, 2: "word " * 6}
    replies = [write(t, text=f"Sentence {t.sentence_index} {texts[t.feature_id]}") for t in tasks]
    rows = score(rows_of(tasks, replies), 0.4, 0.1)
    assert rows["n_tokens"].to_list() == count_words(rows["sentence"].to_list())
    neutral = rows.filter(kind="neutral")
    assert neutral.group_by("feature_id").len()["len"].to_list() == [CONFIG.n_neutral] * 2
    detected = generated_concept_rows(rows, LABELS, CONFIG)
    assert detected["mean_tokens_positive"].to_list() == [32.0, 8.0]
    assert detected["mean_tokens_negative"].to_list() == pytest.approx([32.0, 8.0], abs=0.5)


def test_neutral_sentences_of_a_feature_follow_seed_feature_and_lengths_alone() -> None:
    def neutral(labels: Mapping[int, str], seed: int) -> dict[int, set[str]]:
        config = CONFIG.model_copy(update={"seed": seed})
        tasks = probe_requests(labels, config)
        rows = rows_of(tasks, [write(task) for task in tasks], config=config)
        found = rows.filter(kind="neutral").group_by("feature_id").agg("sentence")
        return {feature: set(sentences) for feature, sentences in found.iter_rows()}

    both = neutral({0: "days", 2: "colours"}, 0)
    assert neutral({2: "colours"}, 0)[2] == both[2] == neutral({2: "music"}, 0)[2]
    assert len({frozenset(neutral({i: "days"}, 0)[i]) for i in range(8)}) > 4
    assert neutral({0: "days"}, 1)[0] != both[0]


def test_the_bundled_sentences_are_many_distinct_and_of_every_length() -> None:
    lengths = np.array(count_words(NEUTRAL_SENTENCES))
    assert len({text.casefold() for text in NEUTRAL_SENTENCES}) == len(NEUTRAL_SENTENCES) > 100
    for length in range(4, 39):
        assert (abs(lengths - length) <= 2).sum() >= 3
    for length in range(8, 21):
        assert (abs(lengths - length) <= 2).sum() >= 15
