"""When a failed call to an endpoint is tried again, after what wait, and when it is given up.

    timeouts, lost connections, unreadable replies   at most `max_retries` times for a call
    5xx, 408, 409, 425                               until the call has failed for `retry_seconds`
    429, 529                                         until no call got an answer for that long

A rate limit makes calls wait for their turn, and says nothing against one of them: while others get
answers it waits on. Where no call got an answer for `retry_seconds`, the endpoint is out of order:
from then on a call is tried once, until one gets an answer (an error of another status is one), so
that a batch of thousands does not wait so long each. Waits are the endpoint's own (Retry-After in
seconds or as a date, retry-after-ms), else they grow from a quarter of a second to half a minute,
with jitter (stamina).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import TypeVar

from resources.call_failures import CallFailed, CallRefused, TransientFailure

FIRST_WAIT_SECONDS, LONGEST_OWN_WAIT_SECONDS, JITTER_SECONDS = 0.25, 30.0, 0.25
# Of a wait that the endpoint asks for.
LONGEST_WAIT_SECONDS = 60.0
# Endpoints that ask for no wait at all, again and again, are asked once a second at most.
SHORTEST_WAITS_SECONDS = (0.01, 1.0)

T = TypeVar("T")


class CallRetries:
    """The retries of one endpoint, shared by the threads that ask it."""

    def __init__(self, *, max_retries: int, retry_seconds: float) -> None:
        """`max_retries` 0: nothing is tried again."""
        self._max_retries = max_retries
        self._retry_seconds = retry_seconds
        self._lock = threading.Lock()
        # When the endpoint began to fail for every call; None since its last answer.
        self._failing_since: float | None = None
        self._last_failure = -math.inf

    def run(self, attempt_once: Callable[[], T]) -> T:
        """What `attempt_once` returns, tried again as long as it raises TransientFailure and is
        worth it. Raises CallFailed.
        """
        import stamina

        call = _FailingCall()

        def wait_or_give_up(error: Exception) -> bool | float:
            if not isinstance(error, TransientFailure) or not self._is_tried_again(error, call):
                return False
            return True if error.wait_seconds is None else call.at_least(error.wait_seconds)

        attempts = stamina.retry_context(
            on=wait_or_give_up,
            attempts=None,
            timeout=None,
            wait_initial=FIRST_WAIT_SECONDS,
            wait_max=LONGEST_OWN_WAIT_SECONDS,
            wait_jitter=JITTER_SECONDS,
        )
        try:
            for attempt in attempts:
                with attempt:
                    found = attempt_once()
                    self._note_answer()
                    return found
        except TransientFailure as error:
            tried = ""
            if error.bound != "attempts" and call.n_failures > 1:
                tried = f"; tried {call.n_failures} times in {call.seconds:.1f} s"
            reason = f"{error.reason}{tried}"
            raise CallFailed(reason, is_no_answer=error.is_no_answer, may_pass=True) from None
        except CallRefused as error:
            self._note_answer()
            raise CallFailed(str(error)) from None
        except CallFailed as error:
            if error.status is not None:
                self._note_answer()
            raise
        raise CallFailed("no attempt was made")

    def _is_tried_again(self, error: TransientFailure, call: _FailingCall) -> bool:
        now = time.monotonic()
        call.note(error, now)
        if self._max_retries == 0:
            return False
        if error.bound == "attempts":
            return call.n_counted <= self._max_retries
        since = self._note_failure(now)
        if error.bound == "time":
            since = min(since, call.broken_since)
        return now - since < self._retry_seconds

    def _note_failure(self, now: float) -> float:
        """Since when no call got an answer; a failure of long ago was another one's."""
        with self._lock:
            is_another = now - self._last_failure > self._retry_seconds + LONGEST_WAIT_SECONDS
            if self._failing_since is None or is_another:
                self._failing_since = now
            self._last_failure = now
            return self._failing_since

    def _note_answer(self) -> None:
        with self._lock:
            self._failing_since = None


class _FailingCall:
    """What one call has been through."""

    def __init__(self) -> None:
        self._began = self._now = time.monotonic()
        # Its first failure that is bound by time: a rate limit before it says nothing against it.
        self.broken_since = math.inf
        self.n_failures = self.n_counted = 0

    def note(self, error: TransientFailure, now: float) -> None:
        self._now = now
        if self.n_failures == 0:
            self._began = now
        if error.bound == "time":
            self.broken_since = min(self.broken_since, now)
        self.n_failures += 1
        self.n_counted += error.bound == "attempts"

    @property
    def seconds(self) -> float:
        return self._now - self._began

    def at_least(self, wait_seconds: float) -> float:
        first, most = SHORTEST_WAITS_SECONDS
        return max(wait_seconds, min(most, first * 2 ** min(self.n_failures - 1, 20)))


def wait_asked_for(headers: Mapping[str, str]) -> float | None:
    """Seconds that an error answer asks to wait, at most a minute; None where it says nothing
    that can be read (RFC 9110, sec. 10.2.3; retry-after-ms is OpenAI's).
    """
    seconds = _number(headers.get("retry-after-ms"))
    if seconds is not None:
        seconds /= 1000
    else:
        said = headers.get("retry-after")
        seconds = _number(said)
        if seconds is None:
            seconds = _seconds_until(said)
    return None if seconds is None else min(seconds, LONGEST_WAIT_SECONDS)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _seconds_until(date: str | None) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(date or "").timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
