"""Another round of tries for rows that failed as often as they are tried by themselves.

A night tries them again three times in all (ledger.py). After a longer outage they would stay as
they are until something else changes; a run that is told to (RETRY=1) takes them up anew.
"""

from __future__ import annotations

from dataclasses import replace

from resources.ledger import Entry, Ledger

DECISION = "retry"
REASON = "another round of tries was asked for"


def try_again(ledger: Ledger, study: str, run_id: str) -> int:
    """Let the study's failed rows count as tried once; of how many asset partitions."""
    given_up = [
        one
        for one in ledger.states(study).values()
        if one.rows_to_retry and not one.wants_retry and one.fingerprint is not None
    ]
    ledger.append([_tried_once(one, run_id) for one in given_up], run_id=run_id)
    return len(given_up)


def _tried_once(entry: Entry, run_id: str) -> Entry:
    return replace(
        entry,
        run_id=run_id,
        decision=DECISION,
        reason=REASON,
        attempt=1,
        rows_in=entry.rows_out,
        rows_reused=entry.rows_out,
        rows_computed=0,
        forward_tokens=0,
        llm_calls_made=0,
        llm_calls_reused=None,
        llm_tokens=None,
        usd=None,
        seconds=None,
    )
