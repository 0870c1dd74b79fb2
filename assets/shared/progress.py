"""Progress of long work: a bar in a terminal, log lines in the UI. Not for timing or results."""

from __future__ import annotations

import logging
import time
from types import TracebackType

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts towards `total` units of work; use as a context manager.

    `reach(done, total)` sets the count, as callbacks of the pure modules do. A line goes to `log`
    at most every ten seconds.
    """

    def __init__(self, log: logging.Logger, what: str, total: int, unit: str) -> None:
        self._log, self._what, self._unit = log, what, unit
        # disable=None: no bar where standard error is no terminal.
        self._bar = tqdm(total=total, desc=what, unit=f" {unit}", leave=False, disable=None)
        self._done, self._total = 0, total
        self._last_line = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def reach(self, done: int, total: int) -> None:
        self._bar.total = total
        self._bar.update(done - self._done)
        self._done, self._total = done, total
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._log.info("%s: %d of %d %s", self._what, done, total, self._unit)
            self._last_line = now
