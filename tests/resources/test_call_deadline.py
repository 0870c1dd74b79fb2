"""An attempt ends in time, also where the other side keeps sending something."""

from __future__ import annotations

import asyncio
import time

import pytest
from misbehaving_endpoint import Endpoint, HttpAnswer, ask, completion, prompt_of

from resources.call_deadline import within


@pytest.mark.parametrize("drips_headers", [False, True])
def test_an_answer_that_drips_is_no_answer_in_time(endpoint: Endpoint, drips_headers: bool) -> None:
    endpoint.answer = lambda body, before: (
        HttpAnswer(body=completion("slow"), drip_seconds=0.02, drips_headers=drips_headers)
        if prompt_of(body) == "drips"
        else HttpAnswer(body=completion("fine"))
    )
    model = endpoint.model(timeout_seconds=1.0, max_retries=0)
    replies = model.complete([ask("drips"), ask("a"), ask("b")], purpose="test")
    assert [reply.status for reply in replies] == ["failed", "ok", "ok"]
    assert replies[0].reason == "no answer within 1 s" and not replies[0].is_final
    # The next night it may come in time.
    endpoint.answer = lambda body, before: HttpAnswer(
        body=completion("slow"), drip_seconds=0.001, drips_headers=drips_headers
    )
    assert endpoint.model().complete([ask("drips")], purpose="test")[0].text == "slow"


def test_work_that_ends_in_time_gives_its_value_and_errors_come_through() -> None:
    async def value() -> int:
        await asyncio.sleep(0)
        return 3

    async def fault() -> None:
        raise ValueError("inside")

    assert within(10, value()) == 3
    with pytest.raises(ValueError, match="inside"):
        within(10, fault())


def test_work_over_time_is_cancelled() -> None:
    ends: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        ends.append("done")

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        within(0.05, work())
    assert ends == ["cancelled"] and time.monotonic() - began < 30
