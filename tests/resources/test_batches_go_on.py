"""A batch is waited for, made smaller or kept, before any of it is given up or paid again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from batch_endpoint import BatchEndpoint
from misbehaving_endpoint import completion

from resources.batch_room import MOST_HALVINGS, BatchRoom
from resources.call_budget import BudgetSpent, CallBudget
from resources.call_failures import CallFailed
from tests.resources.batched_model import REQUESTS, model, open_files, prompt_of

LATER = (503, {"error": {"message": "later"}})


def sizes(provider: BatchEndpoint) -> list[int]:
    return [len(provider.lines_of(batch)) for batch in provider.batches.values()]


def with_room_for(provider: BatchEndpoint, most: int) -> None:
    """Batches fail where more than `most` requests of batches that have not ended wait."""
    finish = type(provider)._finish

    def finish_or_refuse(batch: dict[str, Any]) -> None:
        waiting = [
            b for b in provider.batches.values() if b["status"] not in ("failed", "completed")
        ]
        is_refused = sum(len(provider.lines_of(b)) for b in waiting) > most
        provider.end = "failed" if is_refused else "completed"
        finish(provider, batch)

    provider._finish = finish_or_refuse


def test_a_look_that_fails_in_passing_does_not_end_the_wait(
    provider: BatchEndpoint, tmp_path: Path
) -> None:
    looks = [0]

    def broken(method: str, path: str) -> tuple[int, Any] | None:
        looks[0] += path.startswith("/batches/")
        return LATER if path.startswith("/batches/") and 2 <= looks[0] <= 7 else None

    provider.broken = broken
    replies = model(provider, tmp_path, max_retries=0).complete(REQUESTS, purpose="test")
    assert {reply.status for reply in replies} == {"ok"}
    assert looks[0] > 7 and len(provider.batches) == 1


@pytest.mark.parametrize(
    "body", [b'{"id": "bat', b"<html>maintenance", b"null", b'{"error": {"message": "later"}}']
)
def test_a_look_that_cannot_be_read_does_not_end_the_wait(
    provider: BatchEndpoint, tmp_path: Path, body: bytes
) -> None:
    looks = [0]

    def broken(method: str, path: str) -> tuple[int, Any] | None:
        looks[0] += path.startswith("/batches/")
        return (200, body) if path.startswith("/batches/") and 2 <= looks[0] <= 4 else None

    provider.broken = broken
    replies = model(provider, tmp_path, max_retries=0).complete(REQUESTS, purpose="test")
    assert {reply.status for reply in replies} == {"ok"}
    assert looks[0] > 4 and len(provider.batches) == 1


@pytest.mark.parametrize("status", [503, 429])
def test_a_download_that_fails_in_passing_does_not_end_the_wait(
    provider: BatchEndpoint, tmp_path: Path, status: int
) -> None:
    n_downloads = [0]

    def broken(method: str, path: str) -> tuple[int, Any] | None:
        n_downloads[0] += path.endswith("/content")
        is_broken = path.endswith("/content") and n_downloads[0] <= 6
        return (status, {"error": {"message": "later"}}) if is_broken else None

    provider.broken = broken
    seen: list[int] = []
    asking = model(provider, tmp_path, max_retries=0)
    asking.on_progress = lambda done, total: seen.append(done)
    replies = asking.complete(REQUESTS, purpose="test")
    assert {reply.status for reply in replies} == {"ok"}
    assert n_downloads[0] > 6 and len(provider.batches) == 1 and open_files(tmp_path) == []
    assert seen == sorted(seen)


def test_a_download_that_fails_until_the_time_is_over_is_left_to_the_next_run(
    provider: BatchEndpoint, tmp_path: Path
) -> None:
    provider.broken = lambda method, path: LATER if path.endswith("/content") else None
    with pytest.raises(BudgetSpent, match="batch_0, the next run picks it up"):
        late = CallBudget(deadline=time.time() + 0.5)
        model(provider, tmp_path, late, max_retries=0).complete(REQUESTS, purpose="test")
    provider.broken = lambda method, path: None
    replies = model(provider, tmp_path).complete(REQUESTS, purpose="test")
    assert {reply.status for reply in replies} == {"ok"} and len(provider.batches) == 1


@pytest.mark.parametrize("room", [1, 2, 5])
def test_a_batch_beyond_the_providers_limit_is_halved_and_sent_part_by_part(
    provider: BatchEndpoint, tmp_path: Path, room: int
) -> None:
    with_room_for(provider, room)
    budget = CallBudget()
    replies = model(provider, tmp_path, budget).complete(REQUESTS, purpose="test")
    assert {reply.status for reply in replies} == {"ok"}
    ended = [b for b in provider.batches.values() if b["status"] == "completed"]
    answered = [line["custom_id"] for b in ended for line in provider.lines_of(b)]
    assert sorted(answered) == sorted(reply.request_hash for reply in replies)
    assert max(len(provider.lines_of(batch)) for batch in ended) <= room
    # What was refused was not answered: each call is taken off the budget once.
    assert budget.n_taken == len(REQUESTS)
    assert sizes(provider)[:2] == [11, 5] and open_files(tmp_path) == []


def test_a_limit_that_lets_nothing_through_is_the_reason_of_every_row(
    provider: BatchEndpoint, tmp_path: Path
) -> None:
    with_room_for(provider, 0)
    replies = model(provider, tmp_path).complete(REQUESTS, purpose="test")
    assert all("Enqueued token limit reached" in str(reply.reason) for reply in replies)
    assert not any(reply.is_final for reply in replies)
    assert sizes(provider) == [11, 5, 2, 1] and open_files(tmp_path) == []
    with_room_for(provider, 99)
    again = model(provider, tmp_path).complete(REQUESTS, purpose="test")
    assert {reply.status for reply in again} == {"ok"}


def test_halves_of_a_batch_of_an_earlier_run_are_taken_off_the_budget(
    provider: BatchEndpoint, tmp_path: Path
) -> None:
    provider.looks = 10**6
    with pytest.raises(BudgetSpent):
        late = CallBudget(deadline=0.0)
        model(provider, tmp_path, late).complete(REQUESTS, purpose="test")
    provider.looks = 1
    with_room_for(provider, 5)
    with pytest.raises(BudgetSpent, match="7 of 11 calls"):
        model(provider, tmp_path, CallBudget(calls=7)).complete(REQUESTS, purpose="test")
    replies = model(provider, tmp_path).complete(REQUESTS, purpose="test")
    assert [reply.was_reused for reply in replies] == [True] * 7 + [False] * 4


def test_halving_ends() -> None:
    room, n_halvings = BatchRoom(), 0
    room.begin_round()
    room.note_refused([str(i) for i in range(50_000)], CallFailed("no room"))
    while room.halve():
        n_halvings += 1
        room.begin_round()
        room.note_refused([str(i) for i in range(room.most)], CallFailed("no room"))
    assert (n_halvings, room.most) == (MOST_HALVINGS, 50_000 // 2**MOST_HALVINGS)


def test_results_that_are_not_found_are_not_paid_again(
    provider: BatchEndpoint, tmp_path: Path
) -> None:
    provider.broken = lambda method, path: (
        (404, {"error": {"message": "No such file"}}) if path.endswith("/content") else None
    )
    for _ in range(2):
        replies = model(provider, tmp_path).complete(REQUESTS, purpose="test")
        assert all("No such file" in str(reply.reason) for reply in replies)
        [kept] = open_files(tmp_path)
        assert all(f"remove {kept} to pay again" in str(reply.reason) for reply in replies)
    provider.broken = lambda method, path: None
    replies = model(provider, tmp_path).complete(REQUESTS, purpose="test")
    assert {reply.status for reply in replies} == {"ok"} and len(provider.batches) == 1


def test_a_batch_that_the_provider_does_not_know_any_more_is_forgotten(
    provider: BatchEndpoint, tmp_path: Path
) -> None:
    """Control: there is nothing to wait for."""
    provider.broken = lambda method, path: (
        (404, {"error": {"message": "No such batch"}}) if path.startswith("/batches/") else None
    )
    replies = model(provider, tmp_path).complete(REQUESTS, purpose="test")
    assert {reply.status for reply in replies} == {"failed"} and open_files(tmp_path) == []


def test_lines_without_a_parameter_errors_with_200_and_cut_thoughts_are_told_apart(
    provider: BatchEndpoint, tmp_path: Path
) -> None:
    cut = completion("")
    cut["choices"][0] |= {"finish_reason": "length", "logprobs": None}
    detail = [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "not permitted"}]

    def line_error(body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        if "seed" in body:
            return (422, {"detail": detail})
        answers = {"label 1": {"error": {"message": "upstream overloaded"}}, "write": cut}
        return (200, answers[prompt_of(body)]) if prompt_of(body) in answers else None

    provider.line_error = line_error
    replies = model(provider, tmp_path).complete(REQUESTS, purpose="test")
    assert [reply.status for reply in replies].count("failed") == 2
    assert "upstream overloaded" in str(replies[1].reason) and not replies[1].is_final
    assert "raise extra_completion_tokens" in str(replies[-1].reason) and not replies[-1].is_final
    others = [reply for reply in replies if reply.status == "ok"]
    assert {reply.dropped_parameters for reply in others} == {("seed",)}
    provider.line_error = lambda body: None
    again = model(provider, tmp_path).complete(REQUESTS, purpose="test")
    assert {reply.status for reply in again} == {"ok"}
    assert sum(not reply.was_reused for reply in again) == 2
