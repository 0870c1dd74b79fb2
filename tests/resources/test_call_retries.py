"""Failures are waited out for as long as the study says; what an endpoint asks for is obeyed."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from misbehaving_endpoint import Endpoint, HttpAnswer, ask, completion, prompt_of

from assets.labels.config import LlmConfig
from resources import call_retries
from resources.call_retries import LONGEST_WAIT_SECONDS, wait_asked_for

SLOW_DOWN = HttpAnswer(429, {"error": {"message": "slow down"}})
FINE = HttpAnswer(body=completion("fine"))


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_retries, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(call_retries, "LONGEST_OWN_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(call_retries, "JITTER_SECONDS", 0.0)


@pytest.mark.parametrize("header", ["-1", "nan", "inf", "-inf", "soon", "", "1e999", "0"])
def test_a_wait_that_is_none_leaves_the_computed_one(endpoint: Endpoint, header: str) -> None:
    endpoint.answer = lambda body, before: (
        FINE if before else HttpAnswer(429, SLOW_DOWN.body, {"Retry-After": header})
    )
    replies = endpoint.model().complete([ask("a"), ask("b")], purpose="test")
    assert [reply.status for reply in replies] == ["ok", "ok"]
    assert len(endpoint.requests) == 4
    assert wait_asked_for({"retry-after": header}) == (0.0 if header == "0" else None)


def test_waits_are_read_in_seconds_milliseconds_and_as_a_date() -> None:
    def in_seconds(seconds: float) -> str:
        return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)

    assert wait_asked_for({"retry-after": "2.5"}) == 2.5
    assert wait_asked_for({"retry-after": "2", "retry-after-ms": "250"}) == 0.25
    assert wait_asked_for({"retry-after": "3", "retry-after-ms": "-1"}) == 3.0
    soon = wait_asked_for({"retry-after": in_seconds(30)})
    assert soon is not None and 20 < soon <= 30
    assert wait_asked_for({"retry-after": in_seconds(-30)}) == 0.0
    assert wait_asked_for({"retry-after": in_seconds(9000)}) == LONGEST_WAIT_SECONDS
    assert wait_asked_for({"retry-after": "3600"}) == LONGEST_WAIT_SECONDS
    assert wait_asked_for({}) is None


@pytest.mark.parametrize("form", ["date", "milliseconds"])
def test_the_wait_that_is_asked_for_is_kept(
    endpoint: Endpoint, short_waits: None, form: str
) -> None:
    came: list[float] = []

    def answer(body: dict[str, Any], before: int) -> HttpAnswer:
        came.append(time.time())
        if before:
            return FINE
        later = datetime.now(UTC) + timedelta(seconds=2)
        headers = {"Retry-After": format_datetime(later, usegmt=True)}
        return HttpAnswer(
            429, SLOW_DOWN.body, headers if form == "date" else {"retry-after-ms": "900"}
        )

    endpoint.answer = answer
    assert endpoint.model().complete([ask("a")], purpose="test")[0].status == "ok"
    # A date has whole seconds only.
    assert came[1] - came[0] >= 0.9


def test_a_rate_limit_is_waited_out_however_often_it_is_met(
    endpoint: Endpoint, short_waits: None
) -> None:
    endpoint.answer = lambda body, before: FINE if before >= 7 else SLOW_DOWN
    model = endpoint.model(concurrency=8, retry_seconds=30)
    replies = model.complete([ask(f"q{i}") for i in range(20)], purpose="test")
    assert {reply.status for reply in replies} == {"ok"}
    assert len(endpoint.requests) == 20 * 8


def test_a_window_of_requests_without_a_header_costs_no_row(
    endpoint: Endpoint, short_waits: None
) -> None:
    lock, window = threading.Lock(), [0.0, 0]

    def answer(body: dict[str, Any], before: int) -> HttpAnswer:
        with lock:
            if time.monotonic() - window[0] > 1.0:
                window[:] = [time.monotonic(), 0]
            window[1] += 1
            return FINE if window[1] <= 20 else SLOW_DOWN

    endpoint.answer = answer
    model = endpoint.model(concurrency=8, retry_seconds=30)
    replies = model.complete([ask(f"q{i}") for i in range(60)], purpose="test")
    assert {reply.status for reply in replies} == {"ok"}
    assert len(endpoint.requests) > 60


@pytest.mark.parametrize(("status", "end"), [(429, "ok"), (500, "failed")])
def test_answers_to_others_keep_a_rate_limited_call_waiting_and_no_broken_one(
    endpoint: Endpoint, short_waits: None, status: int, end: str
) -> None:
    began = time.monotonic()

    def answer(body: dict[str, Any], before: int) -> HttpAnswer:
        if prompt_of(body) == "late" and time.monotonic() - began < 2.0:
            return HttpAnswer(status, {"error": {"message": "not now"}})
        return HttpAnswer(body=completion("fine"), sleep_seconds=0.1)

    endpoint.answer = answer
    model = endpoint.model(concurrency=2, retry_seconds=0.8)
    requests = [ask("late"), *(ask(f"q{i}") for i in range(40))]
    replies = model.complete(requests, purpose="test")
    assert [reply.status for reply in replies] == [end] + ["ok"] * 40


@pytest.mark.parametrize("status", [429, 503])
def test_an_endpoint_out_of_order_is_waited_for_once_not_by_every_call(
    endpoint: Endpoint, short_waits: None, status: int
) -> None:
    endpoint.answer = lambda body, before: HttpAnswer(status, {"error": {"message": "no"}})
    model = endpoint.model(concurrency=2, retry_seconds=1.5)
    requests = [ask(f"q{i}") for i in range(40)]
    replies = model.complete(requests, purpose="test")
    assert {reply.status for reply in replies} == {"failed"} and not replies[0].is_final
    times = [sum(prompt_of(b) == f"q{i}" for b in endpoint.requests) for i in range(40)]
    assert max(times[:2]) > 3 and times[4:] == [1] * 36
    endpoint.answer = lambda body, before: FINE
    assert {r.status for r in model.complete(requests, purpose="test")} == {"ok"}
    # After an answer the next failures are waited out again.
    endpoint.answer = lambda body, before: FINE if before >= 4 else SLOW_DOWN
    assert model.complete([ask("new")], purpose="test")[0].status == "ok"


def test_one_server_error_after_a_long_rate_limit_is_waited_out(
    endpoint: Endpoint, short_waits: None
) -> None:
    began = time.monotonic()
    was_broken: list[bool] = []

    def answer(body: dict[str, Any], before: int) -> HttpAnswer:
        if prompt_of(body) != "late":
            return HttpAnswer(body=completion("fine"), sleep_seconds=0.1)
        if time.monotonic() - began < 2.0:
            return SLOW_DOWN
        if was_broken:
            return FINE
        was_broken.append(True)
        return HttpAnswer(503, {"error": {"message": "not now"}})

    endpoint.answer = answer
    model = endpoint.model(concurrency=2, retry_seconds=0.8)
    requests = [ask("late"), *(ask(f"q{i}") for i in range(40))]
    replies = model.complete(requests, purpose="test")
    assert {reply.status for reply in replies} == {"ok"} and was_broken


@pytest.mark.parametrize("status", [400, 422])
def test_an_endpoint_that_answers_with_an_error_is_not_out_of_order(
    endpoint: Endpoint, short_waits: None, status: int
) -> None:
    broken = HttpAnswer(503, {"error": {"message": "no"}})
    model = endpoint.model(concurrency=1, retry_seconds=0.5)
    endpoint.answer = lambda body, before: broken
    assert model.complete([ask("a")], purpose="test")[0].status == "failed"
    endpoint.answer = lambda body, before: HttpAnswer(status, {"error": {"message": "too long"}})
    assert "too long" in str(model.complete([ask("b")], purpose="test")[0].reason)
    endpoint.answer = lambda body, before: FINE if before == 2 else broken
    assert model.complete([ask("c")], purpose="test")[0].status == "ok"


def test_no_wait_at_all_again_and_again_is_no_storm_of_calls(
    endpoint: Endpoint, short_waits: None
) -> None:
    endpoint.answer = lambda body, before: HttpAnswer(429, SLOW_DOWN.body, {"Retry-After": "0"})
    reply = endpoint.model(retry_seconds=1.0).complete([ask("q")], purpose="test")[0]
    assert reply.status == "failed"
    assert 3 <= len(endpoint.requests) <= 9


@pytest.mark.parametrize("fault", ["slow", "lost", "unreadable"])
def test_calls_without_a_readable_answer_are_tried_again_max_retries_times(
    endpoint: Endpoint, short_waits: None, fault: str
) -> None:
    def answer(body: dict[str, Any], before: int) -> HttpAnswer:
        if fault == "unreadable":
            return HttpAnswer(body=b'{"choices": [')
        if fault == "lost":
            return HttpAnswer(body=b"", headers={"Content-Length": "99"})
        return HttpAnswer(body=completion("fine"), sleep_seconds=1.0)

    endpoint.answer = answer
    model = endpoint.model(timeout_seconds=0.3 if fault == "slow" else 5.0, max_retries=4)
    reply = model.complete([ask("q")], purpose="test")[0]
    assert reply.status == "failed"
    assert len(endpoint.requests) == 5


def test_without_retries_nothing_is_tried_again(endpoint: Endpoint) -> None:
    endpoint.answer = lambda body, before: SLOW_DOWN
    reply = endpoint.model(max_retries=0).complete([ask("q")], purpose="test")[0]
    assert (reply.status, len(endpoint.requests)) == ("failed", 1)
    assert LlmConfig().retry_seconds == 300.0
