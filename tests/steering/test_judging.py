"""Judge scores: harmonic means, graded ratings, and failures that never become 0."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

import polars as pl
import pytest

from assets.ledger.costs import RETRYABLE
from assets.shared.chat import ChatReply, ChatRequest
from assets.shared.covered_mean import covered_mean
from assets.steering.judge_prompt import JudgePrompt
from assets.steering.judged_labels import ConceptLabel, kinds_by_sign, labels_to_judge
from assets.steering.judging import (
    build_requests,
    harmonic_mean,
    judge_texts,
    read_rating,
    score_texts,
)
from assets.steering.prompts import CONCEPT_PROMPT, FLUENCY_PROMPT
from assets.steering.tables import NOT_REACHED, STEERING_SCORES

PARTITION = {"site": "s", "fit": "f"}
LABELS = {
    (1, "input"): ConceptLabel("weekdays", "input"),
    (2, "input"): ConceptLabel("food", "input"),
}
BY_SIGN = {
    (1, "input"): ConceptLabel("weekdays", "input"),
    (1, "output"): ConceptLabel("clocks", "output"),
    (1, "output_minus"): ConceptLabel("rivers", "output_minus"),
}
ROW = {"target_kl_nats": 0.1, "prompt": "I think that", "status": "ok", "reason": None}


def texts_of(*rows: Mapping[str, object]) -> pl.DataFrame:
    complete = [{"feature_id": 1, "sign": "+", "text_index": 0, **ROW, **row} for row in rows]
    return pl.DataFrame(complete, infer_schema_length=None)


def reply_to(request: ChatRequest, **values: object) -> ChatReply:
    arguments = {"model": "m", "status": "ok", "text": ""} | values
    return ChatReply(request=request, request_hash=request.request_hash("m"), **arguments)


def graded_reply(request: ChatRequest, shares: Mapping[str, float]) -> ChatReply:
    logprobs = {token: math.log(share) for token, share in shares.items()}
    return reply_to(
        request, text=max(shares, key=shares.__getitem__), first_token_logprobs=logprobs
    )


class FakeChat:
    """Answers by prompt name; remembers what it was asked."""

    def __init__(self, answers: Mapping[str, Mapping[str, object]]) -> None:
        self.answers = answers
        self.asked: list[ChatRequest] = []

    def complete(self, requests: Sequence[ChatRequest], *, purpose: str) -> list[ChatReply]:
        assert purpose == "steering"
        self.asked += requests
        return [reply_to(request, **self.answers[request.prompt_name]) for request in requests]


REQUEST = CONCEPT_PROMPT.request("weekdays", "It rains on Monday.", "graded")


@pytest.mark.parametrize(
    ("concept", "fluency", "score"),
    [
        (2, 2, 2.0),
        (1, 2, 4 / 3),
        (2, 1, 4 / 3),
        (0, 2, 0.0),
        (2, 0, 0.0),
        (0, 0, 0.0),
        (0.5, 0.5, 0.5),
    ],
)
def test_harmonic_mean(concept: float, fluency: float, score: float) -> None:
    assert harmonic_mean(concept, fluency) == pytest.approx(score)


def test_graded_rating_is_the_expectation_over_the_ratings() -> None:
    reply = graded_reply(REQUEST, {"0": 0.2, " 1": 0.1, "1": 0.1, "2": 0.4, "The": 0.2})
    assert read_rating(reply, "graded").value == pytest.approx((0.2 * 1 + 0.4 * 2) / 0.8)


def test_graded_rating_needs_probabilities_on_the_ratings() -> None:
    elsewhere = read_rating(graded_reply(REQUEST, {"The": 0.94, "2": 0.04, "0": 0.02}), "graded")
    assert elsewhere.value is None and elsewhere.answer_mass == pytest.approx(0.06)
    assert "put 0.060 of its probability" in str(elsewhere.reason)
    assert "steering.judge to json" in str(elsewhere.reason)
    without = read_rating(reply_to(REQUEST, text="The"), "graded")
    assert (without.value, without.answer_mass) == (None, None)
    assert "'The' without any" in str(without.reason)


@pytest.mark.parametrize(("on_ratings", "is_rating"), [(0.45, False), (0.55, True), (1.0, True)])
def test_most_of_the_probability_must_be_on_the_ratings(on_ratings: float, is_rating: bool) -> None:
    shares = {"2": on_ratings / 2, "1": on_ratings / 2, "The": max(1 - on_ratings, 1e-12)}
    rating = read_rating(graded_reply(REQUEST, shares), "graded")
    assert (rating.value == pytest.approx(1.5)) if is_rating else (rating.value is None)
    assert rating.answer_mass == pytest.approx(on_ratings)


def test_the_share_of_allowed_answers_is_kept_beside_each_rating() -> None:
    texts = texts_of({"text": "fine"})
    concept, fluency = build_requests(texts, LABELS, "graded")
    replies = [
        graded_reply(concept, {"The": 0.4, "2": 0.5, "0": 0.1}),
        graded_reply(fluency, {"The": 0.7, "1": 0.3}),
    ]
    scores = score_texts(texts, LABELS, replies, "graded")
    STEERING_SCORES.conform(scores, PARTITION)
    row = scores.row(0, named=True)
    assert row["concept_rating"] == pytest.approx(5 / 3) and row["fluency_rating"] is None
    assert row["concept_answer_mass"] == pytest.approx(0.6)
    assert row["fluency_answer_mass"] == pytest.approx(0.3)
    assert (row["status"], row["score"]) == ("failed", None)
    # Log-probabilities rounded up are no more than everything.
    rounded = reply_to(REQUEST, text="2", first_token_logprobs={"2": 1e-6})
    assert read_rating(rounded, "graded").answer_mass == 1.0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"rating": 2}', 2.0),
        ('{"rating": 0}', 0.0),
        ('{"rating": 3}', None),
        ("2", None),
        ('{"rating": true}', None),
        ('{"rat', None),
        (None, None),
        ('{"rating": null}', None),
    ],
)
def test_written_ratings(text: str | None, value: float | None) -> None:
    rating = read_rating(reply_to(REQUEST, text=text), "json")
    assert rating.value == value
    assert (rating.reason is None) == (value is not None)


def test_scores_of_a_json_judge() -> None:
    chat = FakeChat(
        {
            "steering_concept": {"text": '{"rating": 1}'},
            "steering_fluency": {"text": '{"rating": 2}'},
        }
    )
    scores, replies = judge_texts(texts_of({"text": " it is Monday"}), LABELS, chat, judge="json")
    STEERING_SCORES.conform(scores, PARTITION)
    row = scores.row(0, named=True)
    assert row["score"] == pytest.approx(4 / 3)
    assert (row["status"], row["label"], row["label_kind"]) == ("ok", "weekdays", "input")
    assert (row["concept_reply"], row["fluency_reply"]) == ('{"rating": 1}', '{"rating": 2}')
    assert [row["concept_request_hash"], row["fluency_request_hash"]] == [
        reply.request_hash for reply in replies
    ]
    asked = {request.prompt_name: request for request in chat.asked}
    assert "I think that it is Monday" in asked["steering_concept"].messages[-1]["content"]
    assert "weekdays" in asked["steering_concept"].messages[-1]["content"]
    assert "weekdays" not in asked["steering_fluency"].messages[-1]["content"]


def test_a_failed_call_is_null_with_a_reason_and_keeps_the_other_rating() -> None:
    chat = FakeChat(
        {
            "steering_concept": {"status": "failed", "text": None, "reason": "timed out"},
            "steering_fluency": {"text": '{"rating": 2}'},
        }
    )
    scores, _ = judge_texts(texts_of({"text": "x"}), LABELS, chat, judge="json")
    STEERING_SCORES.conform(scores, PARTITION)
    row = scores.row(0, named=True)
    assert (row["status"], row["score"], row["concept_rating"]) == ("failed", None, None)
    assert row["fluency_rating"] == 2.0 and row["reason"] == "concept: timed out"


def test_a_rating_of_zero_is_a_score_of_zero_not_a_failure() -> None:
    chat = FakeChat(
        {
            "steering_concept": {"text": '{"rating": 0}'},
            "steering_fluency": {"text": '{"rating": 2}'},
        }
    )
    scores, _ = judge_texts(texts_of({"text": "x"}), LABELS, chat, judge="json")
    assert scores.row(0, named=True)["score"] == 0.0 and scores["status"][0] == "ok"


def test_texts_that_cannot_be_judged_ask_nothing_and_keep_their_rows() -> None:
    texts = texts_of(
        {"text": "fine"},
        {"text": "fine", "feature_id": 5},
        {"text": None, "text_index": 1, "status": "not_reached", "reason": "not calibrated"},
    )
    requests = build_requests(texts, LABELS, "graded")
    assert len(requests) == 2
    replies = [graded_reply(request, {"2": 1.0}) for request in requests]
    scores = score_texts(texts, LABELS, replies, "graded")
    STEERING_SCORES.conform(scores, PARTITION)
    assert scores["status"].to_list() == ["ok", "not_attempted", "not_reached"]
    assert scores["score"].to_list() == [2.0, None, None]
    assert "no input label" in scores["reason"][1] and "not calibrated" in scores["reason"][2]


def test_texts_of_a_target_that_was_not_reached_count_against_coverage() -> None:
    """Of no LLM's fault, so asking again would not help; and of no label's."""
    reached = [{"text": "fine", "text_index": i} for i in range(6)]
    missed = [
        {"text": None, "text_index": i, "target_kl_nats": 9.0, "status": "not_reached"}
        for i in range(10)
    ]
    unlabelled = [{"text": "fine", "feature_id": 5}]
    texts = texts_of(*reached, *missed, *unlabelled)
    replies = [graded_reply(r, {"2": 1.0}) for r in build_requests(texts, LABELS, "graded")]
    shown = covered_mean(score_texts(texts, LABELS, replies, "graded"), "score")
    assert shown == {"mean_score": 2.0, "mean_score_n": 6, "mean_score_coverage": 6 / 16}
    assert NOT_REACHED not in RETRYABLE


def test_a_text_that_ended_at_once_scores_0_without_a_call() -> None:
    texts = texts_of(
        {"text": None, "status": "empty", "reason": "ended"},
        {"text": None, "status": "empty", "reason": "ended", "feature_id": 5},
    )
    assert build_requests(texts, LABELS, "graded") == []
    scores = score_texts(texts, LABELS, [], "graded")
    STEERING_SCORES.conform(scores, PARTITION)
    empty, unlabelled = scores.to_dicts()
    ratings = ("concept_rating", "fluency_rating", "score")
    assert [empty[name] for name in ratings] == [0.0, 0.0, 0.0]
    assert (empty["status"], empty["reason"]) == ("ok", "0 without asking: ended")
    assert empty["concept_request_hash"] is None and empty["concept_reply"] is None
    assert (unlabelled["status"], unlabelled["score"]) == ("not_attempted", None)


def test_equal_requests_are_made_once() -> None:
    texts = texts_of(
        {"text": "same"}, {"text": "same", "feature_id": 2}, {"text": "b", "sign": "-"}
    )
    requests = build_requests(texts, LABELS, "json")
    names = [request.prompt_name for request in requests]
    assert (names.count("steering_concept"), names.count("steering_fluency")) == (3, 2)
    with pytest.raises(ValueError, match="0 replies for 5 judge requests"):
        score_texts(texts, LABELS, [], "json")


@pytest.mark.parametrize("prompt", [CONCEPT_PROMPT, FLUENCY_PROMPT])
def test_prompts_are_short_balanced_and_versioned(prompt: JudgePrompt) -> None:
    ratings = [rating for _, _, rating in prompt.shots]
    assert sorted(ratings) == [0, 0, 1, 1, 2, 2]
    graded, written = (prompt.request("a", "b", judge) for judge in ("graded", "json"))
    assert sum(len(message["content"]) for message in graded.messages) < 2000
    assert graded.prompt_version != written.prompt_version
    assert (graded.max_tokens, graded.top_logprobs, graded.json_schema) == (1, 20, None)
    assert written.json_schema is not None and written.top_logprobs == 0
    assert json.loads(written.messages[2]["content"]) == {"rating": ratings[0]}
    edited = JudgePrompt(prompt.name, prompt.instruction + ".", prompt.question, prompt.shots)
    assert edited.version("graded") != prompt.version("graded")


def test_long_or_broken_lines_are_cut_to_one_line() -> None:
    content = CONCEPT_PROMPT.request("a\nb", "x\n" * 5000, "graded").messages[-1]["content"]
    assert content.startswith("Text: x x") and len(content) < 2200
    assert content.count("\n") == 1 and "about a b?" in content


def test_no_kind_of_label_stands_in_for_another() -> None:
    labels = pl.DataFrame(
        [
            (1, "token_summary", "monday, friday", "ok"),
            (1, "input", "weekdays", "ok"),
            (1, "combined", "dates", "ok"),
            (2, "input", None, "none"),
            (2, "output", "food", "ok"),
            (3, "input", None, "failed"),
            (3, "output_minus", "rain", "ok"),
        ],
        schema=["feature_id", "kind", "label", "status"],
        orient="row",
    ).with_columns(reason=pl.lit("why"))
    found = labels_to_judge(labels)
    assert found == {
        (1, "input"): ConceptLabel("weekdays", "input"),
        (2, "input"): ConceptLabel(None, "input", "no input label: none, why"),
        (2, "output"): ConceptLabel("food", "output"),
        (3, "input"): ConceptLabel(None, "input", "no input label: failed, why"),
        (3, "output_minus"): ConceptLabel("rain", "output_minus"),
    }
    texts = texts_of(*({"text": "x", "feature_id": i} for i in (1, 2, 3)))
    replies = [graded_reply(r, {"2": 1.0}) for r in build_requests(texts, found, "graded")]
    scores = score_texts(texts, found, replies, "graded")
    assert scores["status"].to_list() == ["ok", "not_attempted", "not_attempted"]
    assert set(scores["label_kind"]) == {"input"}
    assert scores["reason"].to_list()[1:] == [found[i, "input"].reason for i in (2, 3)]
    of_output = score_texts(texts, found, replies[:2], "graded", ("output",))
    assert of_output["status"].to_list() == ["not_attempted", "ok", "not_attempted"]
    assert "labels.kinds has no output" in of_output["reason"][0]


def test_each_sign_is_judged_on_what_it_promotes_and_base_texts_on_both() -> None:
    assert kinds_by_sign(("input", "output"), "+-") == {
        "+": ("input", "output"),
        "-": ("input", "output_minus"),
        "0": ("input", "output", "output_minus"),
    }
    assert kinds_by_sign(("output",), "-") == {"-": ("output_minus",), "0": ("output_minus",)}
    texts = texts_of(
        {"sign": "0", "target_kl_nats": 0.0, "text": "base"},
        {"sign": "+", "text": "added"},
        {"sign": "-", "text": "subtracted"},
    )
    both = ("input", "output")
    requests = build_requests(texts, BY_SIGN, "graded", both)
    names = [request.prompt_name for request in requests]
    # Fluency knows no label.
    assert (names.count("steering_concept"), names.count("steering_fluency")) == (7, 3)
    replies = [
        graded_reply(r, {"2" if "clocks" in r.messages[-1]["content"] else "1": 1.0})
        for r in requests
    ]
    scores = score_texts(texts, BY_SIGN, replies, "graded", both)
    STEERING_SCORES.conform(scores, PARTITION)
    found = scores.select("sign", "label_kind", "label", "concept_rating").rows()
    assert found == [
        ("0", "input", "weekdays", 1.0),
        ("0", "output", "clocks", 2.0),
        ("0", "output_minus", "rivers", 1.0),
        ("+", "input", "weekdays", 1.0),
        ("+", "output", "clocks", 2.0),
        ("-", "input", "weekdays", 1.0),
        ("-", "output_minus", "rivers", 1.0),
    ]
    # A second label adds rows and changes none.
    alone = score_texts(
        texts,
        BY_SIGN,
        [r for r in replies if r.request in build_requests(texts, BY_SIGN, "graded")],
        "graded",
    )
    assert alone.equals(scores.filter(label_kind="input"))


def test_fluency_is_asked_of_base_texts_as_of_steered_ones() -> None:
    """One text, steered and unsteered, of two features: one fluency request and rating for all."""
    texts = texts_of(
        {"sign": "+", "text": " it rains"},
        {"sign": "0", "target_kl_nats": 0.0, "text": " it rains"},
        {"sign": "0", "target_kl_nats": 0.0, "text": " it rains", "feature_id": 2},
    )
    for judge in ("graded", "json"):
        requests = build_requests(texts, LABELS, judge)
        fluency = [r for r in requests if r.prompt_name == FLUENCY_PROMPT.name]
        assert len(fluency) == 1 and len(requests) == 3
        assert not any(label.label in str(fluency[0].messages) for label in LABELS.values())
    replies = [
        graded_reply(r, {"1": 0.5, "2": 0.5}) for r in build_requests(texts, LABELS, "graded")
    ]
    scored = score_texts(texts, LABELS, replies, "graded")
    assert scored["fluency_rating"].to_list() == [1.5] * 3
    assert set(scored["status"]) == {"ok"}
