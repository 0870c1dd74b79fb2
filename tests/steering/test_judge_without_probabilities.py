"""A graded judge whose endpoint gives no token probabilities: its digits count, and rows say so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import polars as pl
import pytest
from misbehaving_endpoint import Endpoint, HttpAnswer, completion, prompt_of

from assets.steering.judged_labels import ConceptLabel
from assets.steering.judging import judge_texts
from assets.steering.score_summary import score_summary
from assets.steering.tables import STEERING_SCORES

LABELS = {(1, "input"): ConceptLabel("weekdays", "input")}
TEXTS = pl.DataFrame(
    [
        {"feature_id": 1, "sign": "+", "target_kl_nats": 0.1, "text_index": i}
        | {"prompt": "I think that", "text": text, "status": "ok", "reason": None}
        for i, text in enumerate((" it is Monday", " the sky", " of"))
    ],
    schema_overrides={"reason": pl.String},
)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.server.shutdown()
    endpoint.server.server_close()


def answer(text: str, shares: Callable[[str], dict[str, float]] | None = None) -> HttpAnswer:
    """`shares` gives a token's log-probabilities; None: the answer has `logprobs: null`."""
    body = completion(text)
    top = [] if shares is None else list(shares(text).items())
    body["choices"][0]["logprobs"] = None if shares is None else {"content": [token(text, top)]}
    return HttpAnswer(body=body)


def token(text: str, top: list[tuple[str, float]]) -> dict[str, Any]:
    candidates = [{"token": one, "logprob": p, "bytes": None} for one, p in top]
    return {"token": text, "logprob": -0.1, "bytes": None, "top_logprobs": candidates}


def digit_for(body: dict[str, Any]) -> str:
    """2 for the text on Monday, 1 for others."""
    return "2" if "Monday" in prompt_of(body) else "1"


def scores_of(endpoint: Endpoint) -> pl.DataFrame:
    scores, replies = judge_texts(TEXTS, LABELS, endpoint.model(), judge="graded")
    STEERING_SCORES.conform(scores, {"site": "s", "fit": "f"})
    assert len(replies) == len(endpoint.requests) == 6
    return scores


def test_without_probabilities_the_written_digits_count(endpoint: Endpoint) -> None:
    endpoint.answer = lambda body, _: answer(digit_for(body))
    scores = scores_of(endpoint)
    assert set(scores["status"]) == {"ok"} and set(scores["judge"]) == {"written"}
    assert scores["score"].to_list() == [2.0, 1.0, 1.0]
    assert scores["concept_answer_mass"].is_null().all()
    assert score_summary(scores)["judge"] == ["written"]


def test_so_they_do_where_log_probabilities_are_refused(endpoint: Endpoint) -> None:
    refusal = {"error": {"message": "`logprobs` are not supported with reasoning models"}}

    def without(body: dict[str, Any], _: int) -> HttpAnswer:
        return HttpAnswer(400, refusal) if "logprobs" in body else answer(digit_for(body))

    endpoint.answer = without
    scores, replies = judge_texts(TEXTS, LABELS, endpoint.model(concurrency=1), judge="graded")
    assert {reply.dropped_parameters for reply in replies} == {("logprobs", "top_logprobs")}
    assert set(scores["judge"]) == {"written"} and scores["score"].to_list() == [2.0, 1.0, 1.0]


def test_expected_and_written_ratings_are_not_mixed(endpoint: Endpoint) -> None:
    """One answer of six has no probabilities: those of the others are not used."""

    def sometimes(body: dict[str, Any], _: int) -> HttpAnswer:
        is_bare = "Monday" in prompt_of(body) and "weekdays" in prompt_of(body)
        return answer(digit_for(body), None if is_bare else lambda text: {text: -0.5, "0": -1.0})

    endpoint.answer = sometimes
    scores = scores_of(endpoint)
    assert set(scores["judge"]) == {"written"}
    assert scores["score"].to_list() == [2.0, 1.0, 1.0]
    mass = scores["concept_answer_mass"].to_list()
    assert mass[0] is None and mass[1] == mass[2] == pytest.approx(0.9744, abs=1e-4)


@pytest.mark.parametrize("text", ["The", "", "3", "2 of 2"])
def test_an_answer_without_digit_or_probabilities_is_no_rating(
    endpoint: Endpoint, text: str
) -> None:
    """It leaves the others' probabilities in use: it may be of white space alone."""

    def answered(body: dict[str, Any], _: int) -> HttpAnswer:
        if "Monday" in prompt_of(body) and "weekdays" in prompt_of(body):
            return answer(text)
        return answer(digit_for(body), lambda text: {text: -0.5, "0": -1.0})

    endpoint.answer = answered
    scores = scores_of(endpoint)
    assert set(scores["judge"]) == {"graded"}
    assert scores["status"].to_list() == ["failed", "ok", "ok"]
    assert scores["concept_rating"][0] is None and 0 < scores["concept_rating"][1] < 1
