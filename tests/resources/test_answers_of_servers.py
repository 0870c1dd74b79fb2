"""Answers as various servers and models give them: in parts, after thoughts, or as an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from misbehaving_endpoint import KEY, Endpoint, HttpAnswer, ask, completion

from resources import call_retries
from resources.json_answers import NotTheJsonAskedFor, json_answer

SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string"}},
    "required": ["label"],
    "additionalProperties": False,
}
TWO = {
    "type": "object",
    "properties": {"label": {"type": "string"}, "why": {"type": "object"}},
    "required": ["label"],
}


@pytest.mark.parametrize(
    "text",
    [
        '<think>maybe {"a": 1}?</think>{"label": "x"}',
        '<think>{"label": "no"}, or not {"label</think>\n{"label": "x"}',
        'it could be {"label": "no"}</think>{"label": "x",}',
        'The set {1,2}: {"label": "x"}',
        'The set {1, 2 and more: {"label": "x"}',
        'Not {"label": 3} but {"label": "x"}.',
        '{"lable": "y"} {"label": "x"} {"label": "z"}',
        'In a {bad} world: ```json\n{ "label": "x" }\n```',
    ],
)
def test_the_block_that_fits_is_the_answer(endpoint: Endpoint, text: str) -> None:
    endpoint.answer = lambda body, before: HttpAnswer(body=completion(text))
    reply = endpoint.model().complete([ask("q", json_schema=SCHEMA)], purpose="test")[0]
    assert reply.status == "ok" and json.loads(str(reply.text)) == {"label": "x"}
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    "text",
    [
        '<think>{"label": "x"}',
        '<think>{"label": "x"}</think>',
        '<think>{"label": "x"}</think>{"label": "half',
        '{"why": {"label": "x"}, "label": "half',
        '{"why": {"label": "x"}}',
        '{"label": ' * 5000,
        "{" * 5000,
    ],
)
def test_thoughts_and_halves_are_no_answer(text: str) -> None:
    with pytest.raises(NotTheJsonAskedFor):
        json_answer(text, TWO)


def test_a_text_that_fits_is_left_as_it_is() -> None:
    text = '{"label": "the tag <think> and {\\"label\\": 1}</think>"}'
    assert json_answer(text, SCHEMA) == text


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": '{"label": '}, {"type": "text", "text": '"x"}'}],
        [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": '{"label": "x"}'}],
        [{"type": "reasoning", "text": "hm"}, {"type": "text", "text": '{"label": "x"}'}],
        ['{"label": ', '"x"}'],
    ],
)
def test_a_content_in_parts_is_their_text(endpoint: Endpoint, content: Any) -> None:
    answer = completion("")
    answer["choices"][0]["message"]["content"] = content
    endpoint.answer = lambda body, before: HttpAnswer(body=answer)
    reply = endpoint.model().complete([ask("q", json_schema=SCHEMA)], purpose="test")[0]
    assert (reply.status, reply.text) == ("ok", '{"label": "x"}')


def in_the_choice(error: Any) -> dict[str, Any]:
    answer = completion("half")
    answer["choices"][0] |= {"error": error, "finish_reason": "error"}
    return answer


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": f"upstream overloaded {KEY}", "code": 502}},
        {"error": {"message": f"upstream overloaded {KEY}", "type": "overloaded"}},
        {"error": f"upstream overloaded {KEY}"},
        in_the_choice({"message": f"upstream overloaded {KEY}", "code": 429}),
    ],
)
def test_an_error_in_the_place_of_an_answer_is_tried_again(
    endpoint: Endpoint, tmp_path: Path, body: Any, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_retries, "FIRST_WAIT_SECONDS", 0.01)
    endpoint.answer = lambda sent, before: HttpAnswer(
        body=completion("fine") if before == 2 else body
    )
    with caplog.at_level("DEBUG"):
        reply = endpoint.model().complete([ask("q")], purpose="test")[0]
    assert (reply.status, reply.text, len(endpoint.requests)) == ("ok", "fine", 3)
    assert KEY not in caplog.text
    endpoint.answer = lambda sent, before: HttpAnswer(body=body)
    reply = endpoint.model(tmp_path, retry_seconds=0.0).complete([ask("r")], purpose="test")[0]
    assert (reply.status, reply.is_final) == ("failed", False)
    assert "upstream overloaded" in str(reply.reason) and "HTTP 200" in str(reply.reason)
    assert KEY not in str(reply.reason)


def test_an_error_with_200_that_no_call_can_mend_stops_the_batch(endpoint: Endpoint) -> None:
    error = {"message": "Insufficient credits", "code": 402}
    endpoint.answer = lambda sent, before: HttpAnswer(body={"error": error})
    model = endpoint.model(concurrency=1)
    replies = model.complete([ask(f"q{i}") for i in range(5)], purpose="test")
    assert all("top it up" in str(reply.reason) for reply in replies)
    assert len(endpoint.requests) == 1
