"""ChatModel against a real HTTP server on loopback that misbehaves on demand."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from misbehaving_endpoint import KEY, Endpoint, HttpAnswer, ask, completion, prompt_of

from assets.labels.config import LlmConfig
from resources.chat_replies import hashed_name, without_password

LABEL_SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string"}},
    "required": ["label"],
    "additionalProperties": False,
}


def test_replies_come_in_order_with_tokens_and_price(endpoint: Endpoint) -> None:
    model = endpoint.model(
        usd_per_million_prompt_tokens=2.0, usd_per_million_completion_tokens=10.0
    )
    seen: list[tuple[int, int]] = []
    model.on_progress = lambda done, total: seen.append((done, total))
    replies = model.complete([ask(f"q{i}") for i in range(7)], purpose="test")
    assert [reply.text for reply in replies] == [f"echo q{i}" for i in range(7)]
    assert {(r.status, r.prompt_tokens, r.completion_tokens) for r in replies} == {("ok", 11, 3)}
    assert replies[0].usd == pytest.approx((11 * 2 + 3 * 10) / 1e6)
    assert replies[0].seconds > 0 and not replies[0].was_reused
    assert seen[0] == (0, 7) and seen[-1] == (7, 7)


def test_an_unknown_price_is_none_not_zero(endpoint: Endpoint) -> None:
    assert endpoint.model().complete([ask("q")], purpose="test")[0].usd is None


def test_first_token_logprobs_skip_white_space(endpoint: Endpoint) -> None:
    reply = endpoint.model().complete([ask("q", top_logprobs=5)], purpose="test")[0]
    assert reply.first_token_logprobs == {"Yes": -0.5, "No": -1.0}
    assert endpoint.requests[0]["top_logprobs"] == 5


def test_server_error_and_rate_limit_are_retried(endpoint: Endpoint) -> None:
    faults = {
        "a": [HttpAnswer(500, {"error": {"message": "oops"}})],
        "b": [HttpAnswer(429, {"error": {"message": "slow down"}}, {"Retry-After": "0.05"})] * 2,
    }

    def answer(body: dict[str, Any], before: int) -> HttpAnswer:
        planned = faults.get(prompt_of(body), [])
        return planned[before] if before < len(planned) else HttpAnswer(body=completion("fine"))

    endpoint.answer = answer
    replies = endpoint.model().complete([ask("a"), ask("b"), ask("c")], purpose="test")
    assert [reply.status for reply in replies] == ["ok"] * 3
    assert len(endpoint.requests) == 2 + 3 + 1


def test_retries_end_and_the_others_go_on(endpoint: Endpoint) -> None:
    endpoint.answer = lambda body, before: (
        HttpAnswer(503, {"error": {"message": "overloaded"}}, {"Retry-After": "0.01"})
        if prompt_of(body) == "bad"
        else HttpAnswer(body=completion("fine"))
    )
    model = endpoint.model(retry_seconds=0.5)
    replies = model.complete([ask("bad"), ask("x"), ask("y")], purpose="test")
    assert [reply.status for reply in replies] == ["failed", "ok", "ok"]
    assert "503" in str(replies[0].reason) and "overloaded" in str(replies[0].reason)
    n_tried = sum(prompt_of(body) == "bad" for body in endpoint.requests)
    assert n_tried > 1 and f"tried {n_tried} times in " in str(replies[0].reason)


def test_wrong_key_names_the_variable_and_stops_the_batch(endpoint: Endpoint) -> None:
    endpoint.answer = lambda body, before: HttpAnswer(
        401, {"error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}}
    )
    model = endpoint.model(concurrency=1)
    replies = model.complete([ask(f"q{i}") for i in range(20)], purpose="test")
    assert {reply.status for reply in replies} == {"failed"}
    assert all("OPENAI_API_KEY" in str(reply.reason) for reply in replies)
    assert len(endpoint.requests) == 1
    assert all(KEY not in repr(reply) for reply in replies)


def test_key_revoked_half_way_keeps_what_was_done(endpoint: Endpoint, tmp_path: Path) -> None:
    def answer(body: dict[str, Any], before: int) -> HttpAnswer:
        if len(endpoint.requests) > 5:
            return HttpAnswer(401, {"error": {"message": "revoked"}})
        return HttpAnswer(body=completion("fine"))

    endpoint.answer = answer
    requests = [ask(f"q{i}") for i in range(10)]
    model = endpoint.model(tmp_path, concurrency=1)
    assert [r.status for r in model.complete(requests, purpose="test")] == ["ok"] * 5 + [
        "failed"
    ] * 5
    endpoint.answer = lambda body, before: HttpAnswer(body=completion("fine"))
    n_before = len(endpoint.requests)
    again = model.complete(requests, purpose="test")
    assert [reply.was_reused for reply in again] == [True] * 5 + [False] * 5
    assert {reply.status for reply in again} == {"ok"}
    assert len(endpoint.requests) - n_before == 5


def test_nothing_listens(endpoint: Endpoint) -> None:
    endpoint.server.server_close()
    model = endpoint.model(concurrency=1)
    started = time.monotonic()
    replies = model.complete([ask(f"q{i}") for i in range(50)], purpose="test")
    assert time.monotonic() - started < 60
    assert {reply.status for reply in replies} == {"failed"}
    assert sum("endpoint down" in str(reply.reason) for reply in replies) == 47
    assert all("OPENAI_BASE_URL" in str(reply.reason) for reply in replies[3:])


def test_slow_answers_time_out_and_the_others_go_on(endpoint: Endpoint) -> None:
    endpoint.answer = lambda body, before: HttpAnswer(
        body=completion("fine"), sleep_seconds=2.0 if prompt_of(body) == "slow" else 0.0
    )
    model = endpoint.model(timeout_seconds=0.3, max_retries=1)
    replies = model.complete([ask("slow"), ask("a"), ask("b")], purpose="test")
    assert [reply.status for reply in replies] == ["failed", "ok", "ok"]
    assert replies[0].reason == "no answer within 0.3 s"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html>not json</html>", "reply could not be read"),
        ({"something": "else"}, "no chat completion"),
        (completion("", refusal="I cannot help with that"), "refused"),
    ],
)
def test_garbage_is_a_row_with_a_reason(endpoint: Endpoint, body: Any, words: str) -> None:
    endpoint.answer = lambda request, before: HttpAnswer(
        body=body if prompt_of(request) == "bad" else completion("fine")
    )
    replies = endpoint.model().complete([ask("bad"), ask("good")], purpose="test")
    assert [reply.status for reply in replies] == ["failed", "ok"]
    assert words in str(replies[0].reason)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ('{"label": "days"}', "days"),
        ('Sure! ```json\n{"label": "da{y}s",}\n``` Hope it helps {}', "da{y}s"),
        ('{"label": "days", "more": [1, 2,]}', "days"),
    ],
)
def test_json_is_read_out_of_prose(endpoint: Endpoint, text: str, label: str) -> None:
    endpoint.answer = lambda body, before: HttpAnswer(body=completion(text))
    reply = endpoint.model().complete([ask("q", json_schema=LABEL_SCHEMA)], purpose="test")[0]
    assert reply.status == "ok" and json.loads(str(reply.text))["label"] == label
    assert endpoint.requests[0]["response_format"]["json_schema"]["schema"] == LABEL_SCHEMA


@pytest.mark.parametrize(
    "text",
    [
        '{"label": "days of the we',
        "days of the week",
        '{"name": "days"}',
        '{"label": 3}',
        "[1]",
        "",
    ],
)
def test_other_json_fails_after_one_repair_and_keeps_the_raw_text(
    endpoint: Endpoint, text: str, tmp_path: Path
) -> None:
    endpoint.answer = lambda body, before: HttpAnswer(body=completion(text))
    model = endpoint.model(tmp_path)
    reply = model.complete([ask("q", json_schema=LABEL_SCHEMA)], purpose="test")[0]
    assert reply.status == "failed" and reply.text == text and reply.is_final
    assert str(reply.reason).startswith("reply is not the JSON asked for")
    assert len(endpoint.requests) == 2
    # It was paid for, and would come again: the next night does not ask.
    again = model.complete([ask("q", json_schema=LABEL_SCHEMA)], purpose="test")[0]
    assert len(endpoint.requests) == 2
    assert again.was_reused and (again.reason, again.text) == (reply.reason, reply.text)


def test_refused_parameters_are_renamed_or_dropped(endpoint: Endpoint) -> None:
    def answer(body: dict[str, Any], before: int) -> HttpAnswer:
        for name in ("max_tokens", "seed"):
            if name in body:
                message = f"Unsupported parameter: '{name}' is not supported with this model."
                return HttpAnswer(400, {"error": {"message": message, "param": name}})
        return HttpAnswer(body=completion("fine"))

    endpoint.answer = answer
    model = endpoint.model(concurrency=1)
    replies = model.complete([ask("a", max_tokens=7), ask("b", max_tokens=7)], purpose="test")
    assert [reply.status for reply in replies] == ["ok", "ok"]
    assert len(endpoint.requests) == 4
    assert endpoint.requests[-1]["max_completion_tokens"] == 7


def test_a_bad_request_that_names_no_parameter_fails_once(endpoint: Endpoint) -> None:
    endpoint.answer = lambda body, before: HttpAnswer(
        400, {"error": {"message": "prompt too long"}}
    )
    reply = endpoint.model().complete([ask("q")], purpose="test")[0]
    assert reply.status == "failed" and "prompt too long" in str(reply.reason)
    assert len(endpoint.requests) == 1


def test_key_is_nowhere(endpoint: Endpoint, tmp_path: Path, caplog: Any) -> None:
    endpoint.answer = lambda body, before: (
        HttpAnswer(500, {"error": {"message": f"failed for Bearer {KEY}"}}, {"Retry-After": "0.01"})
        if prompt_of(body) == "bad"
        else HttpAnswer(body=completion(f"your key is {KEY}"))
    )
    model = endpoint.model(tmp_path, retry_seconds=0.5)
    with caplog.at_level("DEBUG"):
        replies = model.complete([ask("bad"), ask("good")], purpose="test")
    shown = [repr(model), repr(vars(model)), repr(replies), caplog.text]
    assert [KEY in text for text in shown] == [False] * 4
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("user", ["bob:secret-word@", "bob@", ""])
def test_a_password_in_an_address_is_never_written_down(user: str) -> None:
    address = f"http://{user}models.example:8000/v1"
    assert without_password(address) == "http://models.example:8000/v1"
    assert without_password("") == ""
    named = hashed_name(LlmConfig(model="some-model"), address)
    assert named == "some-model at http://models.example:8000/v1"
