"""Probe sentences are run through the model only where no row of before says their score."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import torch

from assets.activations.sites import ActivationSite
from assets.detection.config import DetectionConfig
from assets.detection.probe_scores import ScoredProbes, score_probes
from assets.detection.probe_sentences import NotProbed, probe_requests, probe_sentence_rows
from assets.detection.site_scores import SentenceScores, sentence_scores, sentence_token_counts
from assets.detection.tables import PROBE_SENTENCES
from assets.shared.chat import ChatReply
from tests.activations.tiny_models import D_MODEL, VOCABULARY, tiny_model

MODEL, SITE = tiny_model("llama"), ActivationSite(1, "resid_post")
CONFIG = DetectionConfig(n_activating=3, n_neutral=2)
PARTITION = {"site": "demo:m@L01.resid_post", "fit": "snmf-k003"}
IDS = [4, 7, 9]
DICTIONARY = torch.nn.functional.normalize(
    torch.randn(3, D_MODEL, generator=torch.Generator().manual_seed(0)), dim=1
)
MADE_WITH = ("code", "revision", "float32", SITE.key, 16)


class Letters:
    """A tokenizer: one token a character."""

    def __call__(self, texts: str | list[str], **_: object) -> dict[str, list]:
        if isinstance(texts, str):
            return {"input_ids": [ord(c) % VOCABULARY for c in texts]}
        return {"input_ids": [[ord(c) % VOCABULARY for c in text] for text in texts]}


def probes(labels: dict[int, str], text: str = "A sentence") -> pl.DataFrame:
    tasks = probe_requests(labels, CONFIG)
    replies = [
        ChatReply(t.request, "h", "m", "ok", text=f"{text} {t.sentence_index} on {t.label}.")
        for t in tasks
    ]
    return probe_sentence_rows(
        tasks,
        replies,
        CONFIG,
        label_kind="input",
        not_probed={9: NotProbed("not_attempted", "beyond max_features=2")},
        count_tokens=lambda sentences: sentence_token_counts(Letters(), sentences, 16),
    )


def run_model(
    dictionary: torch.Tensor = DICTIONARY, massive_norm: float = 1e9
) -> Callable[[list[str]], SentenceScores]:
    return lambda sentences: sentence_scores(
        MODEL,
        Letters(),
        SITE,
        sentences,
        dictionary,
        max_tokens=16,
        massive_norm=massive_norm,
    )


def forbidden(sentences: list[str]) -> SentenceScores:
    raise AssertionError(f"the model was run on {sentences}")


def scored(
    rows: pl.DataFrame,
    previous: pl.DataFrame | None = None,
    score: Callable[[list[str]], SentenceScores] | None = None,
    *,
    dictionary: torch.Tensor = DICTIONARY,
    made_with: tuple[str | int, ...] = MADE_WITH,
    massive_norm: float = 1e9,
) -> ScoredProbes:
    return score_probes(
        rows,
        PROBE_SENTENCES.empty() if previous is None else previous,
        dictionary,
        IDS,
        score or run_model(dictionary, massive_norm),
        made_with=made_with,
        massive_norm=massive_norm,
    )


LABELS = {4: "days", 7: "reds"}
FIRST = scored(probes(LABELS))
STORED = PROBE_SENTENCES.conform(FIRST.rows, PARTITION).sort(PROBE_SENTENCES.key)


def test_the_first_run_scores_every_sentence_as_a_plain_pass_does() -> None:
    assert (FIRST.rows_reused, FIRST.rows_computed) == (0, 10)
    rows = FIRST.rows.drop_nulls("sentence")
    sentences = rows["sentence"].to_list()
    expected = run_model()(sentences)
    columns = [IDS.index(feature) for feature in rows["feature_id"]]
    assert rows["score"].to_list() == pytest.approx(
        expected.scores[np.arange(len(rows)), columns].tolist(), abs=1e-6
    )
    assert FIRST.forward_tokens == sum(min(len(text), 16) for text in set(sentences))
    assert FIRST.rows.filter(feature_id=9)["row_fingerprint"].to_list() == [None]


def test_the_same_again_runs_nothing_and_gives_the_same_rows() -> None:
    again = scored(probes(LABELS), STORED, forbidden)
    assert again.rows.equals(FIRST.rows)
    assert (again.rows_reused, again.rows_computed, again.forward_tokens) == (10, 0, 0)
    with pytest.raises(AssertionError, match="the model was run"):
        scored(probes(LABELS), None, forbidden)


def test_a_new_label_runs_its_own_sentences_alone() -> None:
    again = scored(probes({4: "days", 7: "blue"}), STORED)
    assert (again.rows_reused, again.rows_computed) == (7, 3)
    assert again.forward_tokens == 3 * 16
    scratch = scored(probes({4: "days", 7: "blue"}))
    assert again.rows["score"].to_list() == pytest.approx(scratch.rows["score"].to_list(), abs=1e-6)
    assert again.rows["row_fingerprint"].equals(scratch.rows["row_fingerprint"])


def test_one_direction_changed_runs_that_feature_alone() -> None:
    dictionary = DICTIONARY.clone()
    dictionary[1] = -dictionary[1]
    again = scored(probes(LABELS), STORED, dictionary=dictionary)
    assert (again.rows_reused, again.rows_computed) == (5, 5)
    is_first = pl.col("feature_id") == 4
    assert again.rows.filter(is_first).equals(FIRST.rows.filter(is_first))
    scratch = scored(probes(LABELS), dictionary=dictionary)
    assert again.rows["score"].to_list() == pytest.approx(scratch.rows["score"].to_list(), abs=1e-6)


@pytest.mark.parametrize("place", range(5))
def test_other_code_model_number_type_site_or_length_runs_all_anew(place: int) -> None:
    other = tuple("other" if i == place else part for i, part in enumerate(MADE_WITH))
    assert scored(probes(LABELS), STORED, made_with=other).rows_reused == 0


def test_a_threshold_that_leaves_out_the_same_tokens_runs_nothing_another_what_it_must() -> None:
    norms = FIRST.rows["largest_norm"].drop_nulls().sort()
    # Above: no token is massive. Among the norms: those of some sentences are.
    for threshold in (float(norms[-1]), float(norms[-1]) * 3):
        assert scored(probes(LABELS), STORED, forbidden, massive_norm=threshold).rows_computed == 0
    middle = float(norms[len(norms) // 2])
    again = scored(probes(LABELS), STORED, massive_norm=middle)
    assert again.rows_computed == int((norms > middle).sum()) > 0
    scratch = scored(probes(LABELS), massive_norm=middle)
    assert again.rows["score"].to_list() == pytest.approx(scratch.rows["score"].to_list(), abs=1e-6)
    stored = PROBE_SENTENCES.conform(scratch.rows, PARTITION)
    assert stored["smallest_massive_norm"].drop_nulls().min() > middle  # type: ignore[operator]
    nearby = float(stored["largest_norm"].max())  # type: ignore[arg-type]
    assert scored(probes(LABELS), stored, forbidden, massive_norm=nearby).rows_computed == 0


def test_failed_rows_are_tried_again() -> None:
    failed = STORED.with_columns(
        status=pl.when(pl.col("sentence_index") == 0).then(pl.lit("failed")).otherwise("status")
    )
    assert scored(probes(LABELS), failed).rows_computed == 4


def test_rows_of_an_older_lake_are_scored_anew() -> None:
    old = STORED.with_columns(row_fingerprint=pl.lit(None, dtype=pl.String))
    assert scored(probes(LABELS), old).rows_reused == 0
