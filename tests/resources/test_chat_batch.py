"""The provider's batch API: every request gets one reply, whatever becomes of the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from batch_endpoint import BatchEndpoint
from misbehaving_endpoint import completion

from assets.labels.config import LlmConfig
from assets.shared.chat import ChatReply
from resources.call_budget import CallBudget
from resources.chat_model import ChatModel
from tests.resources.batched_model import REQUESTS, model, open_files, prompt_of


def value(reply: ChatReply) -> tuple[Any, ...]:
    return (
        *(reply.status, reply.text, reply.prompt_tokens, reply.completion_tokens),
        *(dict(reply.first_token_logprobs), reply.answer_logprob),
    )


def test_a_batch_gives_what_single_calls_give_at_its_price(
    provider: BatchEndpoint, tmp_path: Path
) -> None:
    prices = {"usd_per_million_prompt_tokens": 1.0, "usd_per_million_completion_tokens": 10.0}
    budget = CallBudget()
    seen: list[tuple[int, int]] = []
    batched = model(provider, tmp_path / "batched", budget, **prices)
    batched.on_progress = lambda done, total: seen.append((done, total))
    replies = batched.complete([*REQUESTS, REQUESTS[0]], purpose="test")
    assert provider.submitted == [reply.request_hash for reply in replies[:-1]]
    assert provider.calls[:2] == ["POST /files", "POST /batches"]
    assert not any("chat" in call for call in provider.calls)
    assert replies[-1].was_reused and seen[-1] == (len(REQUESTS), len(REQUESTS))

    single = model(provider, tmp_path / "single", batch=False, **prices)
    one_by_one = single.complete(REQUESTS, purpose="test")
    assert [value(reply) for reply in replies[:-1]] == [value(reply) for reply in one_by_one]
    assert replies[-2].answer_logprob is not None and replies[6].first_token_logprobs
    for half, whole in zip(replies, one_by_one, strict=False):
        assert whole.usd and half.usd == pytest.approx(whole.usd / 2)
    assert budget.n_taken == len(REQUESTS)
    assert budget.usd_taken == pytest.approx(sum(reply.usd or 0 for reply in one_by_one) / 2)
    assert open_files(tmp_path / "batched") == []
    again = batched.complete(REQUESTS, purpose="test")
    assert all(reply.was_reused for reply in again) and len(provider.batches) == 1
    assert [reply.usd for reply in again] == [reply.usd for reply in replies[:-1]]


def test_lines_that_fail_are_failed_replies_and_are_asked_again(
    provider: BatchEndpoint, tmp_path: Path
) -> None:
    errors = {
        "label 1": (500, {"error": {"message": "oops"}}),
        "label 2": (429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}),
        "judge 1": (400, {"error": {"message": "filtered", "code": "content_filter"}}),
    }
    provider.line_error = lambda body: errors.get(prompt_of(body))
    replies = model(provider, tmp_path).complete(REQUESTS, purpose="test")
    failed = {
        reply.request.messages[0]["content"]: reply for reply in replies if reply.status != "ok"
    }
    assert set(failed) == set(errors)
    assert [failed[name].is_final for name in errors] == [False, False, True]
    assert "HTTP 500: oops" in str(failed["label 1"].reason)
    assert str(failed["judge 1"].reason).startswith("refused: ")
    provider.line_error = lambda body: None
    again = model(provider, tmp_path).complete(REQUESTS, purpose="test")
    assert sum(reply.status != "ok" for reply in again) == 1
    assert provider.submitted[len(REQUESTS) :] == [
        failed["label 1"].request_hash,
        failed["label 2"].request_hash,
    ]


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("expired", "batch_expired: This request could not be executed."),
        ("cancelled", "was cancelled without an answer"),
        ("completed", "was completed without an answer"),
    ],
)
def test_a_batch_that_ends_early_keeps_what_it_answered(
    provider: BatchEndpoint, tmp_path: Path, end: str, words: str
) -> None:
    provider.end = end
    provider.is_left_out = lambda body: prompt_of(body).startswith("judge")
    replies = model(provider, tmp_path).complete(REQUESTS, purpose="test")
    failed = [reply for reply in replies if reply.status != "ok"]
    assert [reply.request for reply in failed] == REQUESTS[5:10]
    assert all(words in str(reply.reason) and not reply.is_final for reply in failed)
    provider.end, provider.is_left_out = "completed", lambda body: False
    again = model(provider, tmp_path).complete(REQUESTS, purpose="test")
    assert {reply.status for reply in again} == {"ok"}
    assert provider.submitted[len(REQUESTS) :] == [reply.request_hash for reply in failed]


def test_a_batch_that_fails_as_a_whole_says_why_on_every_row(
    provider: BatchEndpoint, tmp_path: Path
) -> None:
    provider.end = "failed"
    replies = model(provider, tmp_path).complete(REQUESTS, purpose="test")
    assert {reply.status for reply in replies} == {"failed"}
    assert all("Enqueued token limit reached" in str(reply.reason) for reply in replies)
    assert open_files(tmp_path) == []


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "llm.batch: false"), (401, "OPENAI_API_KEY"), (500, "HTTP 500")],
)
def test_what_cannot_be_submitted_fails_with_the_reason(
    provider: BatchEndpoint, tmp_path: Path, status: int, words: str
) -> None:
    provider.broken = lambda method, path: (
        (status, {"error": {"message": "no"}}) if path == "/files" else None
    )
    replies = model(provider, tmp_path, max_retries=0).complete(REQUESTS, purpose="test")
    assert {reply.status for reply in replies} == {"failed"}
    assert all(words in str(reply.reason) for reply in replies)
    provider.broken = lambda method, path: None
    replies = model(provider, tmp_path).complete(REQUESTS, purpose="test")
    assert {reply.status for reply in replies} == {"ok"}


def test_a_refused_parameter_is_left_out_of_a_second_batch(
    provider: BatchEndpoint, tmp_path: Path
) -> None:
    message = "Unsupported parameter: 'max_tokens' is not supported with this model."
    provider.line_error = lambda body: (
        (400, {"error": {"message": message, "param": "max_tokens"}})
        if "max_tokens" in body
        else None
    )
    replies = model(provider, tmp_path).complete(REQUESTS, purpose="test")
    assert {reply.status for reply in replies} == {"ok"}
    assert [len(provider.lines_of(one)) for one in provider.batches.values()] == [11, 11]


def test_bad_json_is_mended_by_a_second_batch(provider: BatchEndpoint, tmp_path: Path) -> None:
    def bad_first(body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        is_bad = prompt_of(body) == "label 3" and len(body["messages"]) == 1
        return (200, completion('{"lable": 1}')) if is_bad else None

    provider.line_error = bad_first
    replies = model(provider, tmp_path).complete(REQUESTS, purpose="test")
    assert {reply.status for reply in replies} == {"ok"}
    assert [len(provider.lines_of(one)) for one in provider.batches.values()] == [11, 1]
    assert [reply.n_calls for reply in replies] == [1, 1, 1, 2, *[1] * 7]


def test_a_batch_without_a_cache_is_refused(provider: BatchEndpoint) -> None:
    with pytest.raises(ValueError, match="needs a cache folder"):
        ChatModel(LlmConfig(model="m", batch=True))
