"""The embedded LLM as a judge of planted labels: what it is asked in, it answers, and not blindly.

By likelihood it tells the words and texts of these labels from others. By digits it answers too,
and its ratings say nothing (docs/results.md): of these only the form is claimed.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from assets.labels.config import LabelsConfig, LlmConfig
from assets.labels.judging import expected_digit
from assets.labels.label_scores import label_score_rows
from assets.labels.score_questions import score_requests
from assets.labels.simulated_activations import rating_correlation
from assets.labels.tables import LABEL_SCORES
from resources.chat_model import ChatModel
from tests.labels.planted_judges import PARTITION

# Label → texts and the word that makes it.
TEXTS = {
    "month": [("Snow fell in January again", "January"), ("They married last June", "June")],
    "animal": [("A tired dog slept there", "dog"), ("She fed the horse", "horse")],
    "city": [("The train reached Paris late", "Paris"), ("We moved to Tokyo", "Tokyo")],
    "colour": [("He wore a red coat", "red"), ("Paint the door blue", "blue")],
}
LABELS = list(TEXTS)
CONFIG = LabelsConfig(
    n_held_out=2,
    n_shuffled=2,
    score_methods=("detection", "fuzzing", "simulation"),
    score_negatives=("random", "hard"),
)


def contexts() -> pl.DataFrame:
    """Negatives are the texts of other labels; a feature is active at its label's word alone."""
    rows = []
    for feature in range(len(LABELS)):
        for kind, further in (("held_out", 0), ("hard_negative", 1), ("negative", 2)):
            label = LABELS[(feature + further) % len(LABELS)]
            for rank, (text, word) in enumerate(TEXTS[label]):
                tokens = [f" {one}" for one in text.split()]
                is_active = [kind == "held_out" and one.strip() == word for one in tokens]
                rows.append(
                    {
                        "feature_id": feature,
                        "kind": kind,
                        "rank_in_kind": rank,
                        "document_id": f"{label}-{rank}",
                        "peak_token": word,
                        "text": f" {text}",
                        "marked_text": f" {text}".replace(word, f"«{word}»"),
                        "window_tokens": tokens,
                        "window_coefficients": [float(one) for one in is_active],
                    }
                )
    return pl.DataFrame(rows)


def scores(config: LabelsConfig) -> pl.DataFrame:
    labels = pl.DataFrame(
        [
            {"feature_id": i, "kind": "input", "label": x, "status": "ok"}
            for i, x in enumerate(TEXTS)
        ]
    )
    llm = LlmConfig()
    tasks = score_requests(labels, contexts(), config, llm=llm)
    replies = ChatModel(llm).complete([task.request for task in tasks], purpose="scores")
    rows = label_score_rows(tasks, replies, labels, config, llm=llm)
    LABEL_SCORES.conform(rows, PARTITION)
    return rows


def mean(rows: pl.DataFrame, column: str, **where: str | bool) -> float:
    values = rows.filter(**where)[column]
    assert len(values) and values.null_count() == 0
    return float(np.mean(values.to_list()))


@pytest.mark.slow
def test_likelihoods_of_the_embedded_llm_tell_planted_labels_from_shuffled_ones() -> None:
    rows = scores(CONFIG)
    methods = [f"{method}_likelihood" for method in ("detection", "fuzzing", "simulation")]
    assert list(dict.fromkeys(rows["method"])) == methods
    # Four labels and two shuffled ones, of two sorts of negatives each but for simulation.
    assert len(rows) == (4 + 2) * (2 + 2 + 1)
    assert set(rows["status"]) == {"ok"} and rows["n_failed"].sum() == 0
    for method in methods[:2]:
        own = mean(rows, "auroc", method=method, is_shuffled=False)
        assert own > 0.75
        assert own > mean(rows, "auroc", method=method, is_shuffled=True) + 0.15
        assert mean(rows, "balanced_accuracy", method=method, is_shuffled=False) > 0.6
    own = mean(rows, "correlation", method=methods[2], is_shuffled=False)
    assert own > 0.25
    assert own > mean(rows, "correlation", method=methods[2], is_shuffled=True) + 0.2


@pytest.mark.slow
def test_digits_of_the_embedded_llm_are_read_from_its_probabilities() -> None:
    labels = pl.DataFrame([{"feature_id": 0, "kind": "input", "label": "month", "status": "ok"}])
    config = CONFIG.model_copy(
        update={"score_methods": ("simulation",), "judge_style": "yes_no", "confidence": 0.8}
    )
    tasks = score_requests(labels, contexts(), config, llm=LlmConfig())
    requests = [task.request for task in tasks]
    replies = ChatModel(LlmConfig()).complete(requests, purpose="scores")
    ratings = [expected_digit(reply) for reply in replies]
    assert len(ratings) == 2 * (5 + 4) and None not in ratings
    # Graded: the written digit alone would be the same for nearly all.
    assert len(set(ratings)) == len({request.messages[-1]["content"] for request in requests})
    (row,) = label_score_rows(tasks, replies, labels, config, llm=LlmConfig()).to_dicts()
    assert (row["method"], row["status"]) == ("simulation", "ok")
    found = rating_correlation(
        np.array([task.coefficient for task in tasks], dtype=float),
        np.array(ratings, dtype=float),
        [(task.sample, task.document_id) for task in tasks],
        confidence=0.8,
    )
    assert row["correlation"] == found.r and (row["n_positive"], row["n_negative"]) == (2, 2)
    assert (row["correlation_low"], row["correlation_high"]) == found.interval
    assert row["correlation_low"] < row["correlation"] < row["correlation_high"]
