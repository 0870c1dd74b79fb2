"""What a judge's answer is worth: the expected digit, the probability of yes."""

from __future__ import annotations

import math

import pytest

from assets.labels.judging import expected_digit, probability_of_yes
from assets.shared.chat import ChatReply, ChatRequest


@pytest.mark.parametrize(
    ("logprobs", "text", "expected"),
    [
        ({"7": math.log(0.3), " 3": math.log(0.1), "x": -0.1}, "7", 6.0),
        ({}, "4", 4.0),
        ({}, "four", None),
        ({"10": -0.1}, "", None),
        # Nearly all of the probability is on a word: what is left says nothing of the rating.
        ({"Let": -1e-6, "7": -16.0, "3": -17.0}, "7", None),
        ({"7": math.log(0.06)}, "7", 7.0),
    ],
)
def test_expected_digit(logprobs: dict[str, float], text: str, expected: float | None) -> None:
    request = ChatRequest("p", "v", ({"role": "user", "content": "?"},))
    reply = ChatReply(request, "h", "m", "ok", text=text, first_token_logprobs=logprobs)
    assert expected_digit(reply) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("logprobs", "text", "expected"),
    [
        ({"Yes": math.log(0.2), " yes": math.log(0.1), "No": math.log(0.3)}, "No", 0.5),
        ({"No": math.log(0.3), "The": -1.0}, "No", 0.0),
        ({}, "Yes, it does.", 1.0),
        ({}, "no", 0.0),
        ({}, "perhaps", None),
        ({"The": -0.1}, "", None),
        ({"Let": -1e-6, "Yes": -16.0, "No": -17.0}, "Let", None),
        ({"Yes": math.log(0.03), "No": math.log(0.01)}, "Yes", None),
        ({"Yes": math.log(0.045), "No": math.log(0.015)}, "The", 0.75),
    ],
)
def test_probability_of_yes(logprobs: dict[str, float], text: str, expected: float | None) -> None:
    request = ChatRequest("p", "v", ({"role": "user", "content": "?"},))
    reply = ChatReply(request, "h", "m", "ok", text=text, first_token_logprobs=logprobs)
    assert probability_of_yes(reply) == (None if expected is None else pytest.approx(expected))
    failed = ChatReply(request, "h", "m", "failed", text="Yes", reason="timeout")
    assert probability_of_yes(failed) is None
