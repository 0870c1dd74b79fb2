"""Models that think before they answer: room for it, and no answer for ever where it was short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from misbehaving_endpoint import KEY, Endpoint, HttpAnswer, ask, completion

from assets.labels.config import LlmConfig
from resources.chat_model import ChatModel
from resources.chat_replies import hashed_name
from resources.llm_cache import Answer, LlmCache

PRICES = {"usd_per_million_prompt_tokens": 1.0, "usd_per_million_completion_tokens": 10.0}
THOUGHT = 200


def thinks(body: dict[str, Any], before: int) -> HttpAnswer:
    """Needs 200 tokens before its first word."""
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    answer = completion("fine" if limit > THOUGHT else "")
    answer["choices"][0]["logprobs"] = None
    if limit <= THOUGHT:
        answer["choices"][0]["finish_reason"] = "length"
    answer["usage"]["completion_tokens"] = min(limit, THOUGHT + 3)
    return HttpAnswer(body=answer)


def test_a_limit_before_any_text_is_neither_final_nor_kept(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.answer = thinks
    request = ask("q", max_tokens=12)
    reply = endpoint.model(tmp_path, **PRICES).complete([request], purpose="test")[0]
    assert (reply.status, reply.is_final) == ("failed", False)
    assert "no text before the limit of 12 tokens" in str(reply.reason)
    assert "raise extra_completion_tokens" in str(reply.reason)
    # It was paid for.
    assert reply.usd == pytest.approx((11 * 1.0 + 12 * 10.0) / 1e6)
    assert len(endpoint.requests) == 1
    # Another night it may think less.
    endpoint.answer = lambda body, before: HttpAnswer(body=completion("short"))
    again = endpoint.model(tmp_path).complete([request], purpose="test")[0]
    assert (again.text, again.was_reused, len(endpoint.requests)) == ("short", False, 2)
    assert endpoint.model(tmp_path).complete([request], purpose="test")[0].was_reused


def test_an_answer_without_text_of_an_older_version_is_asked_for_again_and_replaced(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    request = ask("q")
    request_hash = request.request_hash(f"m at {endpoint.url}")
    LlmCache(tmp_path).write(request_hash, Answer("m", "", 11, 64, finish_reason="length"))
    for was_reused in (False, True):
        reply = endpoint.model(tmp_path).complete([request], purpose="test")[0]
        assert (reply.text, reply.was_reused) == ("echo q", was_reused)
    assert len(endpoint.requests) == 1


def test_text_or_probabilities_at_the_limit_are_an_answer(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    def answer(body: dict[str, Any], before: int) -> HttpAnswer:
        cut = completion("" if "logprobs" in body else "half a sent")
        cut["choices"][0]["finish_reason"] = "length"
        return HttpAnswer(body=cut)

    endpoint.answer = answer
    requests = [ask("text", max_tokens=3), ask("rating", max_tokens=1, top_logprobs=5)]
    replies = endpoint.model(tmp_path).complete(requests, purpose="test")
    assert [reply.status for reply in replies] == ["ok", "ok"]
    again = endpoint.model(tmp_path).complete(requests, purpose="test")
    assert [reply.was_reused for reply in again] == [True, True]


def test_extra_tokens_and_effort_are_sent_and_make_room(endpoint: Endpoint) -> None:
    endpoint.answer = thinks
    model = endpoint.model(extra_completion_tokens=500, reasoning_effort="low")
    reply = model.complete([ask("q", max_tokens=12)], purpose="test")[0]
    assert (reply.status, reply.text) == ("ok", "fine")
    sent = endpoint.requests[0]
    assert (sent["max_tokens"], sent["reasoning_effort"]) == (512, "low")
    endpoint.model().complete([ask("r", max_tokens=12)], purpose="test")
    assert endpoint.requests[1]["max_tokens"] == 12
    assert "reasoning_effort" not in endpoint.requests[1]


def test_json_within_the_extra_tokens_is_not_taken_for_cut_off(endpoint: Endpoint) -> None:
    """It is sent back as any JSON that is not the one asked for."""

    def answer(body: dict[str, Any], before: int) -> HttpAnswer:
        wrong = completion('{"label": 3}' if len(body["messages"]) == 1 else '{"label": "x"}')
        wrong["usage"]["completion_tokens"] = 300
        return HttpAnswer(body=wrong)

    endpoint.answer = answer
    schema = {
        "type": "object",
        "properties": {"label": {"type": "string"}},
        "required": ["label"],
    }
    model = endpoint.model(extra_completion_tokens=1000)
    reply = model.complete([ask("q", max_tokens=12, json_schema=schema)], purpose="test")[0]
    assert (reply.status, reply.n_calls) == ("ok", 2)


def test_the_options_are_hashed_where_they_are_set_only(endpoint: Endpoint, tmp_path: Path) -> None:
    address = "https://models.example/v1"
    plain = hashed_name(LlmConfig(model="m"), address)
    assert plain == "m at https://models.example/v1"
    others = [
        hashed_name(LlmConfig(model="m", **options), address)
        for options in (
            {"extra_completion_tokens": 10},
            {"extra_completion_tokens": 20},
            {"reasoning_effort": "low"},
            {"reasoning_effort": "low", "extra_completion_tokens": 10},
        )
    ]
    assert len({plain, *others}) == 5
    # Limits that change no answer change no hash.
    assert hashed_name(LlmConfig(model="m", retry_seconds=1, max_retries=0), address) == plain
    embedded = hashed_name(LlmConfig(), "")
    assert (
        hashed_name(LlmConfig(extra_completion_tokens=10, reasoning_effort="low"), "") == embedded
    )

    endpoint.model(tmp_path).complete([ask("q")], purpose="test")
    with_room = endpoint.model(tmp_path, extra_completion_tokens=10)
    assert not with_room.complete([ask("q")], purpose="test")[0].was_reused


def test_an_address_with_a_slash_at_its_end_is_the_same_endpoint(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    def model(address: str) -> ChatModel:
        environment = {"OPENAI_BASE_URL": address, "OPENAI_API_KEY": KEY}
        return ChatModel(LlmConfig(model="m"), cache_folder=tmp_path, environment=environment)

    first = model(endpoint.url).complete([ask("q")], purpose="test")[0]
    second = model(f"{endpoint.url}/").complete([ask("q")], purpose="test")[0]
    assert (first.was_reused, second.was_reused) == (False, True)
    assert first.request_hash == second.request_hash
    assert first.request_hash == ask("q").request_hash(f"m at {endpoint.url}")
