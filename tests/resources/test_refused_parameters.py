"""A refused parameter is told from words that only sound like one, in the dialects of servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from misbehaving_endpoint import Endpoint, HttpAnswer, ask, completion

from assets.labels.call_records import llm_calls_frame
from resources.refused_parameters import DROPPABLE, refused_parameter

SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}


def fastapi(*place: str, kind: str = "extra_forbidden") -> dict[str, Any]:
    message = "Extra inputs are not permitted"
    if kind != "extra_forbidden":
        message = "Input should be less than or equal to 1"
    return {"detail": [{"type": kind, "loc": list(place), "msg": message, "input": 0}]}


def openai(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", **more}}


REFUSALS = [
    (400, openai("Unsupported parameter: 'seed' is not supported.", param="seed"), "seed"),
    (400, openai("Unrecognized request argument supplied: seed"), "seed"),
    (400, openai("Invalid value", param="temperature", code="unsupported_value"), "temperature"),
    (400, openai("'temperature' does not support 0.0 with this model"), "temperature"),
    (400, openai('Invalid JSON payload received. Unknown name "seed": no such field'), "seed"),
    (400, openai("`logprobs` are not supported with reasoning models"), "logprobs"),
    (400, openai("json_schema is not supported by this model"), "response_format"),
    (400, openai("'response_format' of type 'json_schema' is not supported"), "response_format"),
    (400, openai("This response_format type is unavailable now"), "response_format"),
    (400, openai("Additional properties are not allowed ('seed' was unexpected)"), "seed"),
    (400, {"object": "error", "message": "Unsupported parameter(s): `seed`"}, "seed"),
    (403, openai("You are not allowed to request logprobs from this model"), "logprobs"),
    (404, openai("No endpoints found that support logprobs"), "logprobs"),
    (404, openai("No endpoints found that support the parameter: seed"), "seed"),
    (422, fastapi("body", "seed"), "seed"),
    (422, {"detail": "Unknown field: seed"}, "seed"),
    (422, {"error": "seed is not permitted"}, "seed"),
]
OTHERS = [
    (400, openai("Invalid prompt: 'the seed was planted in warm temperature'")),
    (400, openai("Invalid prompt: 'an unknown seed' was flagged")),
    (400, openai("Invalid prompt: the seed is too long", param="messages")),
    (400, openai("max context is 10 tokens, you asked for 20 (12 in max_tokens)")),
    (400, openai("top_k is not supported; temperature and seed are")),
    (422, fastapi("body", "temperature", kind="less_than_equal")),
    (422, fastapi("body", "messages", "0", "seed")),
]


@pytest.mark.parametrize(("status", "body", "name"), REFUSALS)
def test_what_is_refused_is_left_out_and_the_row_says_so(
    endpoint: Endpoint, tmp_path: Path, status: int, body: dict[str, Any], name: str
) -> None:
    endpoint.answer = lambda sent, before: (
        HttpAnswer(status, body) if name in sent else HttpAnswer(body=completion('{"label": "x"}'))
    )
    requests = [ask(f"q{i}", json_schema=SCHEMA, top_logprobs=5) for i in range(3)]
    replies = endpoint.model(tmp_path, concurrency=1).complete(requests, purpose="test")
    assert {reply.status for reply in replies} == {"ok"}
    assert len(endpoint.requests) == 4
    # Without the first, the second of the two means nothing.
    dropped = ("logprobs", "top_logprobs") if name == "logprobs" else (name,)
    assert {reply.dropped_parameters for reply in replies} == {dropped}
    rest = endpoint.requests[0].keys() - set(dropped)
    assert endpoint.requests[-1].keys() == rest
    again = endpoint.model(tmp_path).complete(requests, purpose="test")
    assert {(reply.was_reused, reply.dropped_parameters) for reply in again} == {(True, dropped)}
    frame = llm_calls_frame(again, "test")
    assert set(frame["dropped_parameters"]) == {", ".join(dropped)}


@pytest.mark.parametrize(("status", "body"), OTHERS)
def test_what_only_sounds_like_a_refusal_changes_no_later_call(
    endpoint: Endpoint, status: int, body: dict[str, Any]
) -> None:
    endpoint.answer = lambda sent, before: (
        HttpAnswer(status, body)
        if len(endpoint.requests) == 1
        else HttpAnswer(body=completion("fine"))
    )
    model = endpoint.model(concurrency=1)
    replies = model.complete([ask("a"), ask("b")], purpose="test")
    assert [reply.status for reply in replies] == ["failed", "ok"]
    assert [request.keys() for request in endpoint.requests] == [endpoint.requests[0].keys()] * 2
    assert replies[1].dropped_parameters == ()
    assert llm_calls_frame(replies, "test")["dropped_parameters"].to_list() == [None, None]


def test_a_key_without_access_is_still_told_from_a_refused_parameter(endpoint: Endpoint) -> None:
    endpoint.answer = lambda sent, before: HttpAnswer(403, openai("Project has no access to m"))
    replies = endpoint.model(concurrency=1).complete([ask("a"), ask("b")], purpose="test")
    assert all("OPENAI_API_KEY" in str(reply.reason) for reply in replies)
    assert len(endpoint.requests) == 1


def test_the_message_of_any_dialect_is_the_reason(endpoint: Endpoint) -> None:
    bodies = [{"detail": "first words"}, fastapi("body", "top", kind="x"), {"error": "last words"}]
    words = ["first words", "top: Input should be", "last words"]
    for body, expected in zip(bodies, words, strict=True):
        endpoint.answer = lambda sent, before, body=body: HttpAnswer(422, body)
        reply = endpoint.model().complete([ask("q")], purpose="test")[0]
        assert str(reply.reason).startswith(f"HTTP 422: {expected}")


def test_no_name_alone_is_a_refusal() -> None:
    for name in DROPPABLE:
        assert refused_parameter(f"the {name} of this text", None, DROPPABLE) is None
        assert refused_parameter(f"{name} is not supported", None, DROPPABLE) == name
        assert refused_parameter(f"{name} is not supported", None, ()) is None
