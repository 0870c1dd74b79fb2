"""What a materialization cost, added up from what its tables report.

Stages report costs as metadata under the names of `COSTS`; the ledger and the budget read them.
How many rows are as before is no cost: equal_rows.py counts it for all stages alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

# Metadata names -> columns of run_ledger.
COSTS = {
    "forward_tokens": "forward_tokens",
    "n_llm_calls_made": "llm_calls_made",
    "n_llm_calls_reused": "llm_calls_reused",
    "n_llm_calls_failed": "llm_calls_failed",
    "llm_tokens": "llm_tokens",
    "usd": "usd",
}
# Statuses of rows that lack an answer of the LLM.
RETRYABLE = ("failed", "partial")


def costs_in(metadata: Iterable[Mapping[str, Any]]) -> dict[str, int | float | None]:
    """Sums over tables; None (unknown) where one says it is not known, absent where none tells."""
    total: dict[str, int | float | None] = {}
    for of_table in metadata:
        for name, column in COSTS.items():
            if name not in of_table:
                continue
            value, so_far = of_table[name], total.get(column, 0)
            if so_far is None or not isinstance(value, int | float):
                total[column] = None
            else:
                total[column] = so_far + value
    return total


def rows_to_retry(frames: Iterable[pl.DataFrame], costs: Mapping[str, int | float | None]) -> int:
    """Rows that failed in a way that may pass: an LLM call of this materialization failed.

    Whatever else failed would fail again on the same inputs.
    """
    if not costs.get("llm_calls_failed"):
        return 0
    with_status = [frame["status"] for frame in frames if "status" in frame.columns]
    return sum(int(status.is_in(RETRYABLE).sum()) for status in with_status)
