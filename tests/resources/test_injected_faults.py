"""Faults at the endpoint cost coverage, never a value: what is completed is as without faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from faulty_llm import OF_THE_LINE, OF_THE_MODEL, FaultyLlm, faulty_llm
from misbehaving_endpoint import ask

from assets.labels.judging import probability_of_yes
from assets.shared.chat import ChatReply
from assets.shared.covered_mean import covered_mean

LABEL = {
    "type": "object",
    "properties": {"label": {"type": "string"}},
    "required": ["label"],
    "additionalProperties": False,
}
REQUESTS = [
    *(ask(f"label {i}", json_schema=LABEL) for i in range(40)),
    *(ask(f"judge {i}", top_logprobs=5) for i in range(40)),
    *(ask(f"write {i}", temperature=0.7, seed=i, wants_answer_logprob=True) for i in range(20)),
]
EVERY = (*OF_THE_LINE, *OF_THE_MODEL)


def ask_all(llm: FaultyLlm, folder: Path | None, **options: Any) -> list[ChatReply]:
    timeout = 0.5 if "slow" in llm.faults else 20.0
    options = {"concurrency": 8, "timeout_seconds": timeout, "max_retries": 0} | options
    return llm.endpoint.model(folder, **options).complete(REQUESTS, purpose="test")


def value(reply: ChatReply) -> tuple[Any, ...]:
    return (reply.text, dict(reply.first_token_logprobs), reply.answer_logprob)


def prompt(reply: ChatReply) -> str:
    return reply.request.messages[0]["content"]


@pytest.fixture(scope="module")
def faultless() -> list[ChatReply]:
    with faulty_llm() as llm:
        replies = ask_all(llm, None)
    assert {reply.status for reply in replies} == {"ok"}
    return replies


@pytest.mark.parametrize(
    "faults",
    [("500", "503", "429"), *((fault,) for fault in EVERY[3:]), EVERY],
    ids=lambda faults: " ".join(faults) if len(faults) < 4 else "all at once",
)
def test_what_is_completed_is_as_without_faults_and_is_not_asked_again(
    faults: tuple[str, ...], faultless: list[ChatReply], tmp_path: Path
) -> None:
    with faulty_llm(faults=faults) as llm:
        replies = ask_all(llm, tmp_path)
        assert llm.n_faults > 5
        check_replies(replies, faultless)
        failed = [reply for reply in replies if reply.status == "failed"]
        assert failed or faults == ("wrong schema",)
        assert all(reply.reason for reply in failed)

        # The next night, on a line without faults: only what got no answer is asked for.
        llm.faults = tuple(fault for fault in faults if fault in OF_THE_MODEL)
        assert max(llm.sent.values()) == 1
        llm.endpoint.requests.clear()
        again = ask_all(llm, tmp_path)
        asked = {body["messages"][0]["content"] for body in llm.endpoint.requests}
        assert asked == {prompt(reply) for reply in failed if not reply.is_final}
        final = [reply.is_final for reply in again]
        assert [reply.status == "failed" for reply in again] == final
        assert set(final) == ({False} if not {*faults} & {"cut JSON", "refusal"} else {True, False})
        check_replies(again, faultless)


def check_replies(replies: list[ChatReply], faultless: list[ChatReply]) -> None:
    """One each, in order; completed values and their mean as without faults; and coverage."""
    assert [reply.request for reply in replies] == REQUESTS
    pairs = list(zip(replies, faultless, strict=True))
    assert all(value(one) == value(right) for one, right in pairs if one.status == "ok")
    judged = [(one, right) for one, right in pairs if one.request.top_logprobs]
    table = pl.DataFrame(
        {
            "yes": [probability_of_yes(one) for one, _ in judged],
            "right": [probability_of_yes(right) for _, right in judged],
            "status": [one.status for one, _ in judged],
        }
    )
    shown = covered_mean(table, "yes")
    completed = table.filter(pl.col("status") == "ok")
    assert len(completed) > 0
    assert shown["mean_yes"] == pytest.approx(covered_mean(completed, "right")["mean_right"], abs=0)
    assert shown["mean_yes_n"] == len(completed)
    assert shown["mean_yes_coverage"] == len(completed) / len(table)


def test_retries_mend_what_a_line_does(faultless: list[ChatReply], tmp_path: Path) -> None:
    with faulty_llm(faults=("500", "503", "429")) as llm:
        replies = ask_all(llm, tmp_path, max_retries=8, retry_seconds=60.0)
        assert llm.n_faults > 20
    assert [value(reply) for reply in replies] == [value(reply) for reply in faultless]


def test_a_key_revoked_half_way_keeps_what_was_done(
    faultless: list[ChatReply], tmp_path: Path
) -> None:
    with faulty_llm(revoked_after=50) as llm:
        replies = ask_all(llm, tmp_path)
        check_replies(replies, faultless)
        failed = [reply for reply in replies if reply.status == "failed"]
        assert len(failed) == len(REQUESTS) - 50
        assert all("OPENAI_API_KEY" in str(r.reason) and not r.is_final for r in failed)
        # At most one call for each that was under way is turned away.
        assert len(llm.endpoint.requests) <= 50 + 8
        llm.revoked_after = None
        llm.endpoint.requests.clear()
        again = ask_all(llm, tmp_path)
        assert [value(reply) for reply in again] == [value(reply) for reply in faultless]
        assert len(llm.endpoint.requests) == len(failed)


def test_every_request_is_judged_by_its_own_answer(faultless: list[ChatReply]) -> None:
    """Control: answers differ between requests, so that a mix-up would be seen."""
    labels = {reply.text for reply in faultless if reply.request.json_schema}
    assert len(labels) > 20
