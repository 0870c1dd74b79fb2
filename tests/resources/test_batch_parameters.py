"""What a line of a batch refuses is left out of the next batch, whoever sent the first one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from batch_endpoint import BatchEndpoint

from resources.batch_register import BatchRegister
from resources.call_budget import BudgetSpent, CallBudget
from tests.resources.batched_model import REQUESTS, model, open_files

SAID = "Unsupported parameter: {}"


def refusing(provider: BatchEndpoint, name: str, body: Any) -> None:
    provider.line_error = lambda sent: (400, body) if name in sent else None


@pytest.mark.parametrize("body", [{"error": SAID.format("seed")}, SAID.format("seed")])
def test_an_error_that_is_a_text_is_read_too(
    provider: BatchEndpoint, tmp_path: Path, body: Any
) -> None:
    refusing(provider, "seed", body)
    replies = model(provider, tmp_path).complete(REQUESTS, purpose="test")
    assert {reply.status for reply in replies} == {"ok"}
    assert {reply.dropped_parameters for reply in replies} == {("seed",)}
    refusing(provider, "messages", {"error": "the cat sat on the key"})
    replies = model(provider, tmp_path / "another").complete(REQUESTS, purpose="test")
    assert {reply.reason for reply in replies} == {"HTTP 400: the cat sat on the key"}


def test_the_code_of_a_line_may_tell_what_is_refused(
    provider: BatchEndpoint, tmp_path: Path
) -> None:
    said = {"message": "Only the default (1) works.", "param": "temperature"}
    refusing(provider, "temperature", {"error": said | {"code": "unsupported_value"}})
    replies = model(provider, tmp_path).complete(REQUESTS, purpose="test")
    assert {reply.dropped_parameters for reply in replies} == {("temperature",)}
    refusing(provider, "temperature", {"error": said | {"code": "invalid_value"}})
    replies = model(provider, tmp_path / "another").complete(REQUESTS, purpose="test")
    assert all("Only the default" in str(reply.reason) for reply in replies)


@pytest.mark.parametrize(("name", "dropped"), [("seed", ("seed",)), ("max_tokens", ())])
def test_an_older_batch_that_was_sent_with_a_parameter_dropped_since_is_sent_again(
    provider: BatchEndpoint, tmp_path: Path, name: str, dropped: tuple[str, ...]
) -> None:
    provider.looks = 10**6
    with pytest.raises(BudgetSpent):
        late = CallBudget(deadline=time.time() + 0.2)
        model(provider, tmp_path, late).complete(REQUESTS[:6], purpose="test")
    provider.looks = 1
    refusing(provider, name, {"error": {"message": SAID.format(name), "param": name}})
    asking = model(provider, tmp_path)
    others = asking.complete(REQUESTS[6:], purpose="test")
    assert {reply.status for reply in others} == {"ok"} and len(open_files(tmp_path)) == 1
    replies = asking.complete(REQUESTS[:6], purpose="test")
    assert {reply.status for reply in replies} == {"ok"}
    assert {reply.dropped_parameters for reply in [*others, *replies]} == {dropped}
    sizes = [len(provider.lines_of(batch)) for batch in provider.batches.values()]
    assert sizes == [6, 5, 5, 6] and open_files(tmp_path) == []


def test_an_older_batchs_lines_that_no_room_is_left_for_say_so(
    provider: BatchEndpoint, tmp_path: Path
) -> None:
    """The batch of the others is of one request, which cannot be halved."""
    provider.looks = 10**6
    with pytest.raises(BudgetSpent):
        late = CallBudget(deadline=time.time() + 0.2)
        model(provider, tmp_path, late).complete(REQUESTS[:6], purpose="test")
    provider.looks = 1
    refusing(provider, "seed", {"error": {"message": SAID.format("seed"), "param": "seed"}})
    provider.look_at(provider.batches["batch_0"])
    provider.end = "failed"
    replies = model(provider, tmp_path).complete(REQUESTS[:7], purpose="test")
    assert all("Enqueued token limit reached" in str(reply.reason) for reply in replies)
    provider.end = "completed"
    replies = model(provider, tmp_path).complete(REQUESTS[:7], purpose="test")
    assert {reply.status for reply in replies} == {"ok"}


@pytest.mark.parametrize("name", ["seed", "max_tokens"])
def test_what_is_refused_though_it_was_not_sent_is_a_failure(
    provider: BatchEndpoint, tmp_path: Path, name: str
) -> None:
    """Control: sending it again would have no end, nor would the bill."""
    refusing(provider, "messages", {"error": {"message": SAID.format(name), "param": name}})
    budget = CallBudget()
    asking = model(provider, tmp_path, budget)
    replies = asking.complete(REQUESTS, purpose="test")
    assert all("HTTP 400" in str(reply.reason) for reply in replies)
    assert len(provider.batches) == 2
    # Another run reads a batch that was sent without it: it sends none but its own.
    provider.looks, budget.deadline = 10**6, time.time() + 0.2
    with pytest.raises(BudgetSpent):
        asking.complete(REQUESTS, purpose="test")
    [left] = BatchRegister(tmp_path).open_batches(f"m at {provider.url}")
    assert left.refused == [name]
    provider.looks, n_batches = 1, len(provider.batches)
    replies = model(provider, tmp_path).complete(REQUESTS, purpose="test")
    assert all("HTTP 400" in str(reply.reason) for reply in replies)
    assert len(provider.batches) == n_batches
