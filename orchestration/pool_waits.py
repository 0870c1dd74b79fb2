"""Lets a run that waits for a slot of a pool sleep between its looks.

Dagster 1.13 means to sleep until the next look but takes the smaller of that time and 0
(`InstanceConcurrencyContext.interval_to_next_pending_claim_check`), so both its executors spin: a
waiting run takes a whole core from the one it waits for. This puts a pause where a run that has no
step at work found none to start. Dagster is pinned below 1.14; a test says when this can go.
"""

from __future__ import annotations

import functools
import time
from typing import Any

from dagster._core.execution.plan.active import ActiveExecution

PAUSE_SECONDS = 0.25


def pause_while_waiting() -> None:
    """Mend this process's Dagster; doing it again changes nothing."""
    original = ActiveExecution.get_steps_to_execute
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def get_steps_to_execute(self: Any, *args: Any, **options: Any) -> Any:
        steps = original(self, *args, **options)
        slots = self._instance_concurrency_context
        if not steps and not self._in_flight and slots and slots.has_pending_claims():
            time.sleep(PAUSE_SECONDS)
        return steps

    ActiveExecution.get_steps_to_execute = get_steps_to_execute
