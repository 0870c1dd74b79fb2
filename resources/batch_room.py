"""How many requests may wait at a provider at once: all, until it says that these are too many.

A provider bounds the tokens of the batches under way, and fails a batch beyond ("Enqueued token
limit reached"). Its limit is not told beforehand, so the batch is halved until a part fits, and the
parts are submitted one after the other, each once the one before has ended.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from resources.call_failures import CallFailed

# To 1/64: what is refused then is refused since others' batches take all the room.
MOST_HALVINGS = 6


@dataclass
class BatchRoom:
    """For one set of requests; `promised` are those whose calls were taken off the budget."""

    most: int | None = None
    promised: set[str] = field(default_factory=set)
    # Of the round of batches under way: requests not submitted yet, those of refused batches, and
    # those that had a parameter too many.
    n_left: int = 0
    refused: set[str] = field(default_factory=set)
    sent_again: set[str] = field(default_factory=set)
    because: CallFailed | None = None
    _largest_refused: int = 0
    _n_halvings: int = 0

    @property
    def is_one_at_a_time(self) -> bool:
        return self._n_halvings > 0

    @property
    def needs_another_round(self) -> bool:
        return bool(self.n_left or self.refused or self.sent_again)

    def begin_round(self) -> None:
        self.n_left = self._largest_refused = 0
        self.refused, self.sent_again = set(), set()

    def note_refused(self, requests: Collection[str], because: CallFailed) -> None:
        self.refused |= set(requests)
        self.because = because
        self._largest_refused = max(self._largest_refused, len(requests))

    def halve(self) -> bool:
        """Whether smaller batches are worth trying, which they are from now on."""
        if self._largest_refused <= 1 or self._n_halvings == MOST_HALVINGS:
            return False
        self.most = self._largest_refused // 2
        self._n_halvings += 1
        return True
