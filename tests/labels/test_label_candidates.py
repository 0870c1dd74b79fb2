"""Candidates reranked by pointwise mutual information: planted cases, and what leaves it out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import polars as pl
import pytest

from assets.labels.config import LabelsConfig, LlmConfig
from assets.labels.label_candidates import Choice, choose, read_candidates, read_priors
from assets.labels.label_tasks import label_requests, label_rows, prior_requests_of, requests_of
from assets.labels.prompts import LABEL_PROMPTS
from assets.labels.tables import LABELS
from assets.shared.answer_logprob import answer_logprob
from assets.shared.chat import ChatReply, ChatRequest
from tests.labels.test_label_tasks import CONTEXTS, PARTITION, VOCABULARY

EMBEDDED, REMOTE = LlmConfig(), LlmConfig(model="some-model")
CONFIG = LabelsConfig(kinds=("input",), rerank="pmi", candidates=3, pmi_weight=0.5)
VERSION = LABEL_PROMPTS["input", "words"].version
REQUEST = ChatRequest("p", VERSION, ({"role": "user", "content": "?"},))


def says(label: str, logprob: float | None, request: ChatRequest = REQUEST) -> ChatReply:
    text = json.dumps({"label": label})
    return ChatReply(
        request, request.request_hash("m"), "m", "ok", text=text, answer_logprob=logprob
    )


# The generic label is a little more probable given the evidence, and far more so without any.
GENERIC, SPECIFIC = says("words", -2.0), says("weekdays", -2.5)


def priors(**by_label: float) -> Mapping[tuple[str, str], float]:
    return {(VERSION, label.replace("_", " ")): logprob for label, logprob in by_label.items()}


def test_the_specific_label_wins_over_the_generic_frequent_one() -> None:
    topic = says("topics", -2.0)
    chosen = choose([topic, SPECIFIC], priors(topics=-3.0, weekdays=-11.0), VERSION, 0.5)
    assert chosen == Choice("weekdays", ("topics", "weekdays"), 3.0)
    # Without weight on it, the more probable one stays.
    plain = choose([topic, SPECIFIC], priors(topics=-3.0, weekdays=-11.0), VERSION, 0.0)
    assert plain.label == "topics" and plain.pmi_nats == -2.0


@pytest.mark.parametrize(
    ("replies", "known", "expected"),
    [
        # Not one term of any candidate may be missing: the first one stays, without PMI.
        ([says("a", -2.0), says("b", -2.5)], {"a": -3.0}, Choice("a", ("a", "b"))),
        ([says("a", None), says("b", -2.5)], {"a": -3.0, "b": -9.0}, Choice("a", ("a", "b"))),
        ([says("a", -2.0), says("A.", -1.0)], {"a": -3.0, "A.": -9.0}, Choice("A", ("A",))),
        ([says("none", -1.0), says("b", -2.5)], {"b": -9.0}, Choice(None, ("b",))),
        ([says("a", -2.0), says("TRASH", -1.0)], {"a": -3.0}, Choice("a", ("a",))),
        ([], {}, Choice(None, ())),
    ],
)
def test_when_nothing_is_reranked(
    replies: Sequence[ChatReply], known: dict[str, float], expected: Choice
) -> None:
    assert choose(replies, priors(**known), VERSION, 0.5) == expected


def test_failed_and_unreadable_answers_are_no_candidates() -> None:
    failed = ChatReply(REQUEST, "h", "m", "failed", reason="timeout")
    broken = ChatReply(REQUEST, "h", "m", "ok", text="weather")
    found = read_candidates([failed, broken, SPECIFIC, says("weekdays", -1.5)])
    assert [(one.label, one.logprob) for one in found] == [("weekdays", -1.5)]


def test_a_label_that_is_certain_when_forced_was_not_judged_by_the_model() -> None:
    assert read_priors([says("a", 0.0), says("b", -1e-6), says("c", None)]) == {}
    assert read_priors([says("d", -4.0)]) == {(VERSION, "d"): -4.0}


def rows_by(answers: Mapping[int, Sequence[ChatReply]], prior: float | None) -> pl.DataFrame:
    """Rows of features 0 and 1, given their replies; every label is forced at `prior` nats."""
    tasks = label_requests(CONTEXTS, VOCABULARY, CONFIG, features=[0, 1], llm=EMBEDDED)
    assert [len(task.requests) for task in tasks] == [3, 3]
    replies = [reply for feature in (0, 1) for reply in answers[feature]]
    wanted = prior_requests_of(tasks, replies, CONFIG)
    forced = []
    for request in wanted:
        assert request.wants_answer_logprob and request.json_schema is not None
        (label,) = request.json_schema["properties"]["label"]["enum"]
        assert request.messages[-1]["content"] == "Words: "
        forced.append(says(label, prior and prior * len(label), request))
    assert len({request.request_hash("m") for request in wanted}) == len(wanted)
    rows = label_rows(
        tasks,
        replies,
        CONTEXTS,
        CONFIG,
        all_features=[0, 1],
        beyond="none is",
        priors=read_priors(forced),
    )
    LABELS.conform(rows, PARTITION)
    return rows.filter(kind="input").with_columns(n_forced=pl.lit(len(wanted)))


def test_rows_carry_candidates_and_pmi_and_labels_are_forced_once_for_all_features() -> None:
    one = [says("day", -2.0), says("days of the week", -2.1), says("day", -2.0)]
    rows = rows_by({0: one, 1: [*one[:2], says("time", -5.0)]}, prior=-1.0)
    assert rows["label"].to_list() == ["days of the week"] * 2
    assert rows["candidates"].to_list() == [
        ["day", "days of the week"],
        ["day", "days of the week", "time"],
    ]
    assert rows["n_candidates"].to_list() == [2, 3]
    assert rows["pmi_nats"].to_list() == pytest.approx([-2.1 + 8.0] * 2)
    assert set(rows["n_forced"]) == {3}


def test_an_endpoint_without_log_probabilities_keeps_its_first_answer() -> None:
    silent = [says(label, None) for label in ("day", "days of the week", "time")]
    rows = rows_by({0: silent, 1: silent}, prior=None)
    assert rows["label"].to_list() == ["day"] * 2 and rows["pmi_nats"].null_count() == 2
    assert set(rows["n_forced"]) == {0}
    # And so does one whose log-probabilities are those after the schema took the rest away.
    spoken = [says(label, -1.0) for label in ("day", "days of the week", "time")]
    rows = rows_by({0: spoken, 1: spoken}, prior=-1e-9)
    assert rows["label"].to_list() == ["day"] * 2 and rows["pmi_nats"].null_count() == 2


def test_a_failed_greedy_call_is_a_failed_row_and_a_failed_candidate_is_one_fewer() -> None:
    failed = ChatReply(REQUEST, "h", "m", "failed", reason="timeout")
    good = [says("day", -2.0), says("days of the week", -2.1)]
    rows = rows_by({0: [failed, *good], 1: [good[0], failed, good[1]]}, prior=-1.0)
    assert rows["status"].to_list() == ["failed", "ok"]
    assert rows["label"].to_list() == [None, "days of the week"]
    assert rows["reason"][0] == "timeout"


def test_candidates_are_sampled_with_seeds_of_their_own() -> None:
    for llm, config, n in (
        (EMBEDDED, LabelsConfig(kinds=("input",), candidates=4), 4),
        (REMOTE, LabelsConfig(kinds=("input",)), 1),
        (REMOTE, LabelsConfig(kinds=("input",), rerank="pmi", candidates=2), 2),
        (EMBEDDED, LabelsConfig(kinds=("input",), rerank="none"), 1),
    ):
        tasks = label_requests(CONTEXTS, VOCABULARY, config, features=[0], llm=llm)
        requests = requests_of(tasks)
        assert len(requests) == n == len({request.request_hash("m") for request in requests})
        assert [request.temperature for request in requests] == [0.0] + [1.0] * (n - 1)
        assert [request.seed for request in requests] == list(range(n))
        assert {request.wants_answer_logprob for request in requests} == {n > 1}


def test_only_requests_that_want_the_answers_probability_are_hashed_with_it() -> None:
    # A hash from before there was such a thing: cached answers stay of use.
    old = ChatRequest("p", "v", ({"role": "user", "content": "?"},))
    assert old.request_hash("m") == "c836a909506795955ad3af0ff33b3223"
    wanting = ChatRequest("p", "v", old.messages, wants_answer_logprob=True)
    assert wanting.request_hash("m") != old.request_hash("m")


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([('{"', -9.0), ("label", -9.0), ('": "', -9.0), ("sea", -2.0), ('"}', -0.5)], -2.5),
        ([('{\n "label": "', -9.0), ("a", -1.0), ('b"', -2.0), ("\n}", -9.0), ("", -7.0)], -3.0),
        ([('{"a": "x', -1.0), ('", "b": 2}', -2.0)], -3.0),
        ([("Yes", -0.5), (".", -1.0), ("", -7.0)], -1.5),
        ([], None),
        ([("", -3.0)], None),
    ],
)
def test_the_log_probability_of_an_answer_is_its_texts(
    tokens: Sequence[tuple[str, float]], expected: float | None
) -> None:
    assert answer_logprob(tokens) == (None if expected is None else pytest.approx(expected))
