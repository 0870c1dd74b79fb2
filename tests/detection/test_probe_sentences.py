"""Probe sentences: requests, rows, scores and what failures do to them."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
import torch

from assets.detection.config import DetectionConfig
from assets.detection.neutral_sentences import NEUTRAL_SENTENCES, draw_neutral_sentences
from assets.detection.probe_scores import score_probes
from assets.detection.probe_sentences import (
    ProbeTask,
    generated_concept_rows,
    labels_to_probe,
    probe_requests,
    probe_sentence_rows,
)
from assets.detection.site_scores import SentenceScores
from assets.detection.tables import CONCEPT_DETECTION, PROBE_SENTENCES
from assets.labels.chosen_labels import ChosenLabel
from assets.shared.chat import ChatReply

CONFIG = DetectionConfig(n_activating=3, n_neutral=4, n_bootstrap=20)
PARTITION = {"site": "demo:m@L01.mlp_hidden", "fit": "snmf-k064"}
LABELS = {0: "days", 2: "colours"}
NOT_PROBED = {1: "beyond max_features=2"}


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
    rows = probe_sentence_rows(tasks, [write(t) for t in tasks], CONFIG, not_probed=NOT_PROBED)
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


def test_a_refusal_in_prose_is_a_failed_sentence_and_an_apology_is_one() -> None:
    tasks = probe_requests(LABELS, CONFIG)
    replies = [write(task) for task in tasks]
    replies[0] = write(tasks[0], text="I'm sorry, but I can't help with that.")
    replies[1] = write(tasks[1], text="As an AI language model, I cannot write this.")
    replies[2] = write(tasks[2], text="I'm sorry I missed your call last night.")
    rows = probe_sentence_rows(tasks, replies, CONFIG, not_probed={})
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
    rows = probe_sentence_rows(tasks, replies, CONFIG, not_probed={})
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
    rows = score(probe_sentence_rows(tasks, replies, CONFIG, not_probed={}), 0.4, 0.1)
    row = generated_concept_rows(rows, {0: "days"}, CONFIG).row(0, named=True)
    assert (row["status"], row["auroc"], row["n_positive"]) == ("failed", None, 0)
    assert "endpoint down" in row["reason"]


def test_a_mean_below_zero_leaves_s_cd_null() -> None:
    tasks = probe_requests({0: "days"}, CONFIG)
    rows = probe_sentence_rows(tasks, [write(t) for t in tasks], CONFIG, not_probed={})
    row = generated_concept_rows(score(rows, 0.4, -0.1), {0: "days"}, CONFIG).row(0, named=True)
    assert (row["s_cd"], row["status"], row["auroc"]) == (None, "partial", 1.0)
    assert "s_cd" in row["reason"]


def test_an_unscored_sentence_fails() -> None:
    tasks = probe_requests({0: "days"}, CONFIG)
    rows = probe_sentence_rows(tasks, [write(t) for t in tasks], CONFIG, not_probed={})
    scored = score(rows, math.nan, math.nan)
    PROBE_SENTENCES.conform(scored, PARTITION)
    assert set(scored["status"]) == {"failed"} and scored["score"].null_count() == len(scored)


def test_nothing_to_probe_is_an_empty_but_valid_table() -> None:
    rows = probe_sentence_rows([], [], CONFIG, not_probed={})
    assert PROBE_SENTENCES.conform(rows, PARTITION).is_empty()
    assert score(rows, 0.4, 0.1).is_empty()
    assert CONCEPT_DETECTION.conform(generated_concept_rows(rows, {}, CONFIG), PARTITION).is_empty()


def test_neutral_sentences_are_distinct_and_drawn_by_seed_and_feature() -> None:
    assert len(set(NEUTRAL_SENTENCES)) == len(NEUTRAL_SENTENCES) >= 24
    drawn = draw_neutral_sentences(5, seed=0, feature_id=1)
    assert len(set(drawn)) == 5 and drawn == draw_neutral_sentences(5, seed=0, feature_id=1)
    assert drawn != draw_neutral_sentences(5, seed=0, feature_id=2)
    with pytest.raises(ValueError, match="the bundled list has"):
        draw_neutral_sentences(1000, seed=0, feature_id=0)
