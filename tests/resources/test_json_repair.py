"""An answer that is not the JSON asked for is sent back once, with what was wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from misbehaving_endpoint import KEY, Endpoint, HttpAnswer, ask, completion

from assets.labels.call_costs import cost_summary
from assets.labels.config import LlmConfig
from resources.call_budget import BudgetSpent, CallBudget
from resources.chat_model import ChatModel
from resources.llm_cache import LlmCache

SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string"}},
    "required": ["label"],
    "additionalProperties": False,
}
BAD = '{"lable": "days"}'
PRICES = {"usd_per_million_prompt_tokens": 1.0, "usd_per_million_completion_tokens": 10.0}


def is_repair(body: dict[str, Any]) -> bool:
    return len(body["messages"]) > 1


def mends(body: dict[str, Any], before: int) -> HttpAnswer:
    return HttpAnswer(body=completion('{"label": "days"}' if is_repair(body) else BAD))


def test_the_second_call_shows_the_bad_answer_and_what_was_wrong(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.answer = mends
    request = ask("q", json_schema=SCHEMA)
    reply = endpoint.model(tmp_path, **PRICES).complete([request], purpose="test")[0]
    assert (reply.status, reply.text) == ("ok", '{"label": "days"}')
    first, second = endpoint.requests
    assert second["messages"][:1] == first["messages"]
    assert second["messages"][1] == {"role": "assistant", "content": BAD}
    wrong = second["messages"][2]["content"]
    assert "the answer has no 'label'" in wrong and json.dumps(SCHEMA) in wrong
    assert {name: second[name] for name in second if name != "messages"} == {
        name: first[name] for name in first if name != "messages"
    }
    # Both calls count.
    assert (reply.n_calls, reply.prompt_tokens, reply.completion_tokens) == (2, 22, 6)
    assert reply.usd == pytest.approx((22 * 1.0 + 6 * 10.0) / 1e6)
    summary = cost_summary([reply])
    assert (summary["n_llm_calls_made"], summary["llm_tokens"]) == (2, 28)
    # And both are known for good.
    again = endpoint.model(tmp_path, **PRICES).complete([request], purpose="test")[0]
    assert len(endpoint.requests) == 2
    assert again.was_reused and (again.text, again.usd) == (reply.text, reply.usd)


@pytest.mark.parametrize("attempts", [0, 1, 3])
def test_it_is_sent_back_as_often_as_the_study_says(endpoint: Endpoint, attempts: int) -> None:
    endpoint.answer = lambda body, before: HttpAnswer(body=completion(BAD))
    model = endpoint.model(json_repair_attempts=attempts)
    reply = model.complete([ask("q", json_schema=SCHEMA)], purpose="test")[0]
    assert len(endpoint.requests) == 1 + attempts == reply.n_calls
    assert (reply.status, reply.is_final) == ("failed", True)


def test_more_attempts_go_on_from_what_was_answered(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.answer = mends
    request = ask("q", json_schema=SCHEMA)
    without = endpoint.model(tmp_path, json_repair_attempts=0)
    assert without.complete([request], purpose="test")[0].status == "failed"
    reply = endpoint.model(tmp_path, **PRICES).complete([request], purpose="test")[0]
    assert [is_repair(body) for body in endpoint.requests] == [False, True]
    # This run paid for the second call only.
    assert (reply.status, reply.was_reused, reply.n_calls) == ("ok", False, 1)
    assert reply.usd == pytest.approx((11 * 1.0 + 3 * 10.0) / 1e6)


def test_a_number_too_long_to_be_read_is_sent_back_and_never_ends_the_stage(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    too_long = f'{{"label": {"1" * 5000}}}'
    endpoint.answer = lambda body, before: HttpAnswer(
        body=completion('{"label": "days"}' if is_repair(body) and before else too_long)
    )
    request = ask("q", json_schema=SCHEMA)
    without = endpoint.model(tmp_path, json_repair_attempts=0)
    for was_reused in (False, True):
        reply = without.complete([request], purpose="test")[0]
        assert (reply.status, reply.was_reused) == ("failed", was_reused)
        assert "a number has too many digits" in str(reply.reason)
        assert len(str(reply.reason)) < 400
    reply = endpoint.model(tmp_path, json_repair_attempts=2).complete([request], purpose="test")[0]
    assert (reply.status, reply.text) == ("ok", '{"label": "days"}')


def test_json_that_was_cut_off_says_so_and_is_not_sent_back(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    cut = completion('{"label": "days of the we')
    cut["choices"][0]["finish_reason"] = "length"
    endpoint.answer = lambda body, before: HttpAnswer(body=cut)
    request = ask("q", json_schema=SCHEMA, max_tokens=12)
    reply = endpoint.model(tmp_path).complete([request], purpose="test")[0]
    assert (reply.status, reply.is_final) == ("failed", True)
    assert "it was cut off at max_tokens=12" in str(reply.reason)
    assert endpoint.model(tmp_path).complete([request], purpose="test")[0].was_reused
    assert len(endpoint.requests) == 1
    # With more room it is another request.
    longer = ask("q", json_schema=SCHEMA, max_tokens=50)
    endpoint.model(tmp_path).complete([longer], purpose="test")
    assert len(endpoint.requests) == 2


def test_a_repair_that_gets_no_answer_is_tried_again_and_the_first_is_kept(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.answer = lambda body, before: (
        HttpAnswer(500, {"error": {"message": "oops"}})
        if is_repair(body)
        else HttpAnswer(body=completion(BAD))
    )
    request = ask("q", json_schema=SCHEMA)
    reply = endpoint.model(tmp_path, max_retries=0, **PRICES).complete([request], purpose="t")[0]
    assert (reply.status, reply.is_final) == ("failed", False)
    assert "HTTP 500" in str(reply.reason)
    assert (reply.n_calls, reply.prompt_tokens) == (2, 11)
    assert cost_summary([reply])["usd"] == pytest.approx((11 * 1.0 + 3 * 10.0) / 1e6)
    endpoint.requests.clear()
    endpoint.answer = mends
    assert endpoint.model(tmp_path).complete([request], purpose="t")[0].status == "ok"
    assert [is_repair(body) for body in endpoint.requests] == [True]


def test_a_budget_that_ends_before_the_repair_keeps_the_first_answer(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.answer = mends
    environment = {"OPENAI_BASE_URL": endpoint.url, "OPENAI_API_KEY": KEY}

    def night() -> ChatModel:
        budget = CallBudget(calls=1)
        config = LlmConfig(model="m", concurrency=1)
        return ChatModel(config, cache_folder=tmp_path, environment=environment, budget=budget)

    request = ask("q", json_schema=SCHEMA)
    with pytest.raises(BudgetSpent):
        night().complete([request], purpose="test")
    assert night().complete([request], purpose="test")[0].text == '{"label": "days"}'
    assert [is_repair(body) for body in endpoint.requests] == [False, True]


def test_half_a_surrogate_pair_is_kept_like_any_text(endpoint: Endpoint, tmp_path: Path) -> None:
    raw = json.dumps(completion("half \ud83d of a face")).encode()
    endpoint.answer = lambda body, before: HttpAnswer(body=raw)
    reply = endpoint.model(tmp_path).complete([ask("q")], purpose="test")[0]
    assert reply.status == "ok" and str(reply.text).encode()
    assert LlmCache(tmp_path).read([reply.request_hash])[reply.request_hash].text == reply.text
