"""Nothing is paid twice: batches under way are gone on with, and budgets hold before they begin."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from batch_endpoint import BatchEndpoint
from misbehaving_endpoint import KEY, ask

from resources.batch_register import BatchRegister, OpenBatch
from resources.call_budget import BudgetSpent, CallBudget
from tests.resources.batched_model import REQUESTS, model, open_files


def test_the_budgets_time_ends_and_the_next_run_picks_the_batch_up(
    provider: BatchEndpoint, tmp_path: Path
) -> None:
    provider.looks = 10**6
    budget = CallBudget(deadline=time.time() + 0.5)
    with pytest.raises(BudgetSpent, match=r"minutes are over.*batch_0.*picks it up"):
        model(provider, tmp_path, budget).complete(REQUESTS, purpose="test")
    assert budget.n_taken == len(REQUESTS)
    [left] = open_files(tmp_path)
    assert json.loads(left.read_text())["batch_id"] == "batch_0"
    assert KEY not in left.read_text()
    provider.looks = 1
    later = CallBudget()
    replies = model(provider, tmp_path, later).complete(REQUESTS, purpose="test")
    assert {reply.status for reply in replies} == {"ok"}
    assert (len(provider.batches), later.n_taken, open_files(tmp_path)) == (1, 0, [])


def test_more_requests_beside_a_batch_under_way_make_a_batch_of_their_own(
    provider: BatchEndpoint, tmp_path: Path
) -> None:
    provider.looks = 10**6
    with pytest.raises(BudgetSpent):
        late = CallBudget(deadline=time.time() + 0.2)
        model(provider, tmp_path, late).complete(REQUESTS[:6], purpose="test")
    provider.looks = 1
    # One of the first six is not asked for any more: it was paid for, and is kept all the same.
    replies = model(provider, tmp_path).complete(REQUESTS[1:], purpose="test")
    assert {reply.status for reply in replies} == {"ok"}
    assert len(provider.batches) == 2
    assert sorted(provider.submitted) == sorted(set(provider.submitted))
    assert model(provider, tmp_path).complete(REQUESTS[:1], purpose="test")[0].was_reused


@pytest.mark.parametrize("heard", ["of the batch", "nothing"])
def test_a_run_killed_after_it_submitted_pays_once(
    provider: BatchEndpoint, tmp_path: Path, heard: str
) -> None:
    """Killed while it waits for the result, or before it heard that there is a batch."""
    provider.looks = 10**6
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from assets.labels.config import LlmConfig
from assets.shared.chat import ChatRequest
from resources.chat_model import ChatModel
llm = LlmConfig(model="m", batch=True, batch_poll_seconds=0.05)
model = ChatModel(llm, cache_folder=Path({str(tmp_path)!r}),
    environment={{"OPENAI_BASE_URL": {provider.url!r}, "OPENAI_API_KEY": {KEY!r}}})
model.complete([ChatRequest("p", "v1", ({{"role": "user", "content": f"q{{i}}"}},))
    for i in range(6)], purpose="test")
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    while "GET /batches/batch_0" not in provider.calls and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    process.wait()
    if heard == "nothing":
        register = BatchRegister(tmp_path)
        [batch] = register.open_batches(f"m at {provider.url}")
        register.write(OpenBatch(batch.asked, batch.requests, batch.submitted_at, batch.key))
        # Others' batches are newer than ours.
        for _ in range(4):
            provider.create_batch(
                {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
                | {"input_file_id": "file-0"}
            )
    n_batches, provider.looks = len(provider.batches), 1
    requests = [ask(f"q{i}") for i in range(6)]
    replies = model(provider, tmp_path).complete(requests, purpose="test")
    assert {reply.status for reply in replies} == {"ok"}
    assert len(provider.batches) == n_batches


def test_a_lost_answer_to_the_submission_makes_no_second_batch(
    provider: BatchEndpoint, tmp_path: Path
) -> None:
    provider.loses_the_answer_to_create = True
    replies = model(provider, tmp_path, max_retries=1).complete(REQUESTS, purpose="test")
    assert {reply.status for reply in replies} == {"ok"}
    assert len(provider.batches) == 1


@pytest.mark.parametrize("first", [None, 504, 200])
@pytest.mark.parametrize("status", [403, 404])
def test_a_batch_that_was_perhaps_made_is_not_paid_again_where_it_cannot_be_looked_up(
    provider: BatchEndpoint, tmp_path: Path, first: int | None, status: int
) -> None:
    provider.loses_the_answer_to_create, provider.status_of_create = first is None, first
    provider.broken = lambda method, path: (
        (status, {"error": {"message": "no list"}})
        if (method, path) == ("GET", "/batches")
        else None
    )
    for _ in range(2):
        replies = model(provider, tmp_path, max_retries=1).complete(REQUESTS, purpose="test")
        [kept] = open_files(tmp_path)
        assert json.loads(kept.read_text())["batch_id"] is None
        assert all("no list" in str(reply.reason) for reply in replies)
        assert all(f"remove {kept} to pay again" in str(reply.reason) for reply in replies)
    provider.broken = lambda method, path: None
    replies = model(provider, tmp_path).complete(REQUESTS, purpose="test")
    assert {reply.status for reply in replies} == {"ok"}
    assert (len(provider.batches), open_files(tmp_path)) == (1, [])


@pytest.mark.parametrize("first", [None, 429])
def test_a_batch_that_every_answer_refused_is_forgotten(
    provider: BatchEndpoint, tmp_path: Path, first: int | None
) -> None:
    """Control: an answer that refuses it says that there is none."""
    n_asked = [0]

    def broken(method: str, path: str) -> tuple[int, Any] | None:
        if path != "/batches":
            return None
        n_asked[0] += 1
        status = first if first and n_asked[0] == 1 else 400
        return (status, {"error": {"message": "not you"}})

    provider.broken = broken
    replies = model(provider, tmp_path, max_retries=1).complete(REQUESTS, purpose="test")
    assert all("was not submitted: HTTP 400: not you" in str(reply.reason) for reply in replies)
    assert open_files(tmp_path) == []


def test_a_look_up_that_cannot_be_read_does_not_say_that_there_is_none(
    provider: BatchEndpoint, tmp_path: Path
) -> None:
    provider.loses_the_answer_to_create = True
    provider.broken = lambda method, path: (
        (200, b"<html>maintenance") if (method, path) == ("GET", "/batches") else None
    )
    replies = model(provider, tmp_path, max_retries=1).complete(REQUESTS, purpose="test")
    assert all("reply could not be read" in str(reply.reason) for reply in replies)
    provider.broken = lambda method, path: None
    replies = model(provider, tmp_path).complete(REQUESTS, purpose="test")
    assert {reply.status for reply in replies} == {"ok"} and len(provider.batches) == 1


def test_a_batch_that_was_never_made_is_submitted(provider: BatchEndpoint, tmp_path: Path) -> None:
    hashes = {request.request_hash(f"m at {provider.url}"): False for request in REQUESTS}
    BatchRegister(tmp_path).write(OpenBatch(f"m at {provider.url}", hashes, time.time()))
    replies = model(provider, tmp_path).complete(REQUESTS, purpose="test")
    assert {reply.status for reply in replies} == {"ok"}
    assert (len(provider.batches), open_files(tmp_path)) == (1, [])


def test_results_that_cannot_be_read_now_are_read_by_the_next_run(
    provider: BatchEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they could not be read for as long as a batch is waited for."""
    monkeypatch.setattr("resources.chat_batch.LONGEST_LIFE", 0.0)
    provider.broken = lambda method, path: (
        (503, {"error": {"message": "later"}}) if path.endswith("/content") else None
    )
    replies = model(provider, tmp_path, max_retries=0).complete(REQUESTS, purpose="test")
    assert all("could not be read" in str(reply.reason) for reply in replies)
    provider.broken = lambda method, path: None
    replies = model(provider, tmp_path).complete(REQUESTS, purpose="test")
    assert {reply.status for reply in replies} == {"ok"} and len(provider.batches) == 1


def test_a_budget_of_calls_is_taken_before_the_submission(
    provider: BatchEndpoint, tmp_path: Path
) -> None:
    with pytest.raises(BudgetSpent, match="4 of 11 calls were made and are kept"):
        model(provider, tmp_path, CallBudget(calls=4)).complete(REQUESTS, purpose="test")
    assert len(provider.submitted) == 4
    replies = model(provider, tmp_path).complete(REQUESTS, purpose="test")
    assert [reply.was_reused for reply in replies] == [True] * 4 + [False] * 7


def test_a_budget_in_usd_is_promised_before_the_submission(
    provider: BatchEndpoint, tmp_path: Path
) -> None:
    prices = {"usd_per_million_prompt_tokens": 0.0, "usd_per_million_completion_tokens": 1e6}
    # At most 64 tokens each, at half the price: 32 USD, and 100 suffice for three.
    with pytest.raises(BudgetSpent, match="does not suffice for the rest; 3 of 11"):
        model(provider, tmp_path, CallBudget(usd=100.0), **prices).complete(
            REQUESTS, purpose="test"
        )
    assert len(provider.submitted) == 3
