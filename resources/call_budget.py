"""What a run may still spend on LLM calls: a number of calls, USD, and an end in time.

A call is taken before it is sent and its price noted when it is answered, so USD may be overdrawn
by the calls that were under way. Safe for threads. As text (`to_tag`) it travels in a run's tags.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field

BUDGET_TAG = "featurelake/budget"


class BudgetSpent(RuntimeError):
    """More calls or minutes are needed than the run may still take; answers are in the cache."""


@dataclass
class CallBudget:
    """None stands for no limit; `deadline` is in seconds since 1970.

    `n_taken` and `usd_taken` count the calls that were taken from this very object and their price,
    which is None once the price of one was not known.
    """

    calls: int | None = None
    usd: float | None = None
    deadline: float | None = None
    n_taken: int = field(default=0, init=False)
    usd_taken: float | None = field(default=0.0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def from_tag(cls, text: str | None) -> CallBudget:
        return cls() if text is None else cls(**json.loads(text))

    def to_tag(self) -> str:
        return json.dumps({"calls": self.calls, "usd": self.usd, "deadline": self.deadline})

    @property
    def spent_because(self) -> str | None:
        """Which limit is reached; None where there is something left."""
        if self.calls is not None and self.calls <= 0:
            return "the budget of LLM calls is spent"
        if self.usd is not None and self.usd <= 0:
            return "the budget in USD is spent"
        if self.is_over_time:
            return "the budget's minutes are over"
        return None

    @property
    def is_over_time(self) -> bool:
        return self.deadline is not None and time.time() >= self.deadline

    def take_call(self) -> bool:
        """Take one call; False where the budget is spent."""
        with self._lock:
            if self.spent_because is not None:
                return False
            if self.calls is not None:
                self.calls -= 1
            self.n_taken += 1
            return True

    def note_price(self, usd: float | None) -> None:
        """Take off the price of a call that was taken; None: not known."""
        with self._lock:
            if usd is None or self.usd_taken is None:
                self.usd_taken = None
            else:
                self.usd_taken += usd
            if self.usd is not None:
                self.usd -= usd or 0.0

    def spend(self, *, calls: int = 0, usd: float = 0.0) -> None:
        """Take off what others have spent."""
        with self._lock:
            if self.calls is not None:
                self.calls -= calls
            if self.usd is not None:
                self.usd -= usd
