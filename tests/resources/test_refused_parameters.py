"""A refused parameter is told from words that only sound like one, in the dialects of servers."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from misbehaving_endpoint import Endpoint, HttpAnswer, ask, completion

from assets.labels.call_records import llm_calls_frame
from resources import chat_endpoint
from resources.chat_endpoint import ChatEndpoint
from resources.refused_parameters import DROPPABLE, refused_parameter

SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}


def fastapi(*place: str, kind: str = "extra_forbidden") -> dict[str, Any]:
    message = "Extra inputs are not permitted"
    if kind != "extra_forbidden":
        message = "Input should be less than or equal to 1"
    return {"detail": [{"type": kind, "loc": list(place), "msg": message, "input": 0}]}


def openai(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", **more}}


# As providers write them.
OLD_NAME = (
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
    "'max_completion_tokens' instead."
)
ONE_VALUE = (
    "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default (1) "
    "value is supported."
)
NO_SCHEMAS = (
    "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model."
)
OTHER_TYPES = (
    "The parameter `response_format.type` specified in the request are not valid: invalid value: "
    "`json_schema`, supported values are: `json_object` and `text`."
)
TOO_LARGE = (
    "max_tokens is too large: 50000. This model supports at most 4096 completion tokens, whereas "
    "you provided 50000."
)
BAD_SCHEMA = (
    "Invalid schema for response_format 'answer': In context=('properties', 'label'), 'allOf' is "
    "not permitted."
)

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
    (422, {"message": fastapi("body", "seed"), "param": None}, "seed"),
    (422, fastapi("body", "response_format", "json_schema", "strict"), "response_format"),
    (422, {"detail": [{"type": "extra_forbidden", "loc": ["seed"], "msg": "no"}]}, "seed"),
    (400, openai("no", param="seed", code="unknown_parameter"), "seed"),
    (400, openai(ONE_VALUE, param="temperature", code="unsupported_value"), "temperature"),
    (400, openai(NO_SCHEMAS, param="response_format"), "response_format"),
    (400, openai(OTHER_TYPES, param="response_format.type", code="no"), "response_format"),
]
OTHERS = [
    (400, openai("Invalid prompt: 'the seed was planted in warm temperature'")),
    (400, openai("Invalid prompt: 'an unknown seed' was flagged")),
    (400, openai("Invalid prompt: the seed is too long", param="messages")),
    (400, openai("max context is 10 tokens, you asked for 20 (12 in max_tokens)")),
    (400, openai("top_k is not supported; temperature and seed are")),
    (422, fastapi("body", "temperature", kind="less_than_equal")),
    (422, fastapi("body", "messages", "0", "seed")),
    (400, openai(TOO_LARGE, param="max_tokens", code="invalid_value")),
    (400, openai("no such value", param="max_tokens", code="unsupported_value")),
    (400, openai(BAD_SCHEMA, param="response_format", code="invalid_json_schema")),
    (400, openai("5 is greater than the maximum of 1 - 'logprobs'", param="logprobs")),
    (422, {"detail": [{"loc": [], "msg": "seed"}]}),
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


@pytest.mark.parametrize("code", ["unsupported_parameter", None])
def test_an_old_name_of_a_parameter_is_replaced(endpoint: Endpoint, code: str | None) -> None:
    endpoint.answer = lambda sent, before: (
        HttpAnswer(400, openai(OLD_NAME, param="max_tokens", code=code))
        if "max_tokens" in sent
        else HttpAnswer(body=completion("fine"))
    )
    replies = endpoint.model(concurrency=1).complete([ask("a"), ask("b")], purpose="test")
    assert {(reply.status, reply.dropped_parameters) for reply in replies} == {("ok", ())}
    sent = endpoint.requests
    assert len(sent) == 3
    assert {one.get("max_completion_tokens") for one in sent[1:]} == {sent[0]["max_tokens"]}


@pytest.mark.parametrize(("status", "body"), OTHERS)
def test_what_only_sounds_like_a_refusal_changes_no_later_call(
    endpoint: Endpoint, status: int, body: dict[str, Any]
) -> None:
    endpoint.answer = lambda sent, before: (
        HttpAnswer(status, body)
        if len(endpoint.requests) == 1
        else HttpAnswer(body=completion('{"label": "x"}'))
    )
    model = endpoint.model(concurrency=1)
    requests = [ask(text, json_schema=SCHEMA, top_logprobs=5) for text in ("a", "b")]
    replies = model.complete(requests, purpose="test")
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
    placeless = [{"loc": [], "msg": "no place"}, {"msg": "nor here"}]
    bodies = [
        {"detail": "first words"},
        fastapi("body", "top", kind="x"),
        {"detail": placeless},
        {"message": {"detail": placeless}},
        {"error": "last words"},
    ]
    places = "no place; nor here"
    words = ["first words", "top: Input should be", places, places, "last words"]
    for body, expected in zip(bodies, words, strict=True):
        endpoint.answer = lambda sent, before, body=body: HttpAnswer(422, body)
        reply = endpoint.model().complete([ask("q")], purpose="test")[0]
        assert str(reply.reason).startswith(f"HTTP 422: {expected}")


def test_no_name_alone_is_a_refusal() -> None:
    for name in DROPPABLE:
        assert refused_parameter(f"the {name} of this text", None, DROPPABLE) is None
        assert refused_parameter(f"{name} is not supported", None, DROPPABLE) == name
        assert refused_parameter(f"{name} is not supported", None, ()) is None


@pytest.mark.parametrize(
    ("name", "words"),
    [("max_tokens", "sent as max_completion_tokens"), ("seed", "sent without it")],
)
def test_the_log_says_once_what_becomes_of_a_refused_parameter(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture, name: str, words: str
) -> None:
    endpoint.answer = lambda sent, before: (
        HttpAnswer(400, openai(f"Unsupported parameter: {name}"))
        if name in sent
        else HttpAnswer(body=completion("fine"))
    )
    endpoint.model(concurrency=1).complete([ask("a"), ask("b")], purpose="test")
    said = [one.getMessage() for one in caplog.records if "refuses" in one.getMessage()]
    assert said == [f"m refuses {name}; {words} from now on"]


def test_threads_that_are_refused_the_same_say_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = ChatEndpoint(
        model="m", base_url="http://nowhere", api_key=None, timeout_seconds=1.0, max_retries=0
    )
    warnings: list[Any] = []

    def refuse() -> None:
        endpoint.drop_refused_parameter(400, "Unsupported parameter: seed", ["seed"])

    def warning(*said: Any) -> None:
        warnings.append(said)
        # Another call is refused while this one is still at it.
        if len(warnings) == 1:
            other = threading.Thread(target=refuse)
            other.start()
            other.join(60)

    monkeypatch.setattr(chat_endpoint.logger, "warning", warning)
    refuse()
    assert len(warnings) == 1 and "seed" not in endpoint.droppable_parameters
