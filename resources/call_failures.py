"""Why a call to an endpoint failed, whether it may pass, and what a person can do about it.

One table for single calls and for the lines of a batch's error file: from an HTTP status, an error
code and a message to one of three. `TransientFailure` may pass and is tried again; `CallRefused` is
an answer of a kind (a content filter's: the same request would be refused again); `CallFailed` is
over, and `stops_batch` where no other call of the batch could succeed.
"""

from __future__ import annotations

import re
from typing import Literal

LONGEST_REASON = 300
# Codes or types of an error that more calls would only repeat.
NO_QUOTA = {"insufficient_quota", "billing_not_active", "billing_hard_limit_reached"}
CONTENT_FILTER = {"content_filter", "content_policy_violation"}
FILTERED_WORDS = re.compile(r"content management policy|content[ _]filter|was flagged", re.I)
MAY_PASS = (408, 409, 425, 429)
# Too many requests; 529 is Anthropic's for an overload.
RATE_LIMITED = (429, 529)
# What ends the retries of a failure (call_retries.py).
RetryBound = Literal["attempts", "time", "progress"]


class CallFailed(Exception):
    """A call that is over. `stops_batch`: no other can succeed; `is_no_answer`: nobody spoke;
    `status`: what the endpoint answered, where it was no passing failure; `may_pass`: it was one,
    and went on for longer than it was tried again.
    """

    def __init__(
        self,
        reason: str,
        *,
        stops_batch: bool = False,
        is_no_answer: bool = False,
        status: int | None = None,
        may_pass: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.stops_batch = stops_batch
        self.is_no_answer = is_no_answer
        self.status = status
        self.may_pass = may_pass


class CallRefused(Exception):
    """The provider's content filter refused the prompt; its text says so."""


class TransientFailure(Exception):
    """An attempt failed in a way that may pass; its text is free of secrets (it gets logged)."""

    def __init__(
        self,
        reason: str,
        *,
        wait_seconds: float | None = None,
        is_no_answer: bool = False,
        bound: RetryBound = "attempts",
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_seconds = wait_seconds
        self.is_no_answer = is_no_answer
        self.bound: RetryBound = bound


def failure_of(
    status: int, codes: set[str], message: str, *, model: str, wait_seconds: float | None = None
) -> CallFailed | CallRefused | TransientFailure:
    """What an error answer stands for. `codes` are its code and type; `message` has no secrets."""
    reason = f"HTTP {status}: {message}"[:LONGEST_REASON]
    if status in (400, 403) and (codes & CONTENT_FILTER or FILTERED_WORDS.search(message)):
        return CallRefused(reason)
    remedy = _remedy(status, codes, model)
    if remedy is not None:
        return CallFailed(f"{reason}; {remedy}", stops_batch=True, status=status)
    if status in MAY_PASS or status >= 500:
        bound = "progress" if status in RATE_LIMITED else "time"
        return TransientFailure(reason, wait_seconds=wait_seconds, bound=bound)
    return CallFailed(reason, status=status)


def _remedy(status: int, codes: set[str], model: str) -> str | None:
    """What to do where every call would fail alike; None where it would not."""
    if status == 402 or codes & NO_QUOTA:
        return "the account has no quota left: top it up or raise its limit, then run again"
    if status == 401:
        return "the endpoint refuses the key in OPENAI_API_KEY: set a valid one"
    if status == 403:
        return (
            f"the key in OPENAI_API_KEY has no access: allow it the model {model!r}, or set "
            "another key, llm.model or OPENAI_BASE_URL"
        )
    if status == 404:
        return f"check the study's llm.model ({model!r}) and OPENAI_BASE_URL"
    return None
