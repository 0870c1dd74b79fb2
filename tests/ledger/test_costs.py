"""Costs are added up over tables; what is not known stays unknown, and is never 0."""

import polars as pl

from assets.ledger.costs import COSTS, costs_in, rows_to_retry
from assets.ledger.tables import RUN_LEDGER


def test_costs_add_up_and_the_unknown_stays_unknown() -> None:
    first = {"forward_tokens": 5, "n_llm_calls_made": 2, "usd": 0.5, "plot": "…"}
    second = {"forward_tokens": 7, "usd": "unknown"}
    assert costs_in([first, second]) == {"forward_tokens": 12, "llm_calls_made": 2, "usd": None}
    assert costs_in([second, first])["usd"] is None
    assert costs_in([{}]) == {}


def test_every_cost_is_a_column_of_the_ledger_that_may_be_null() -> None:
    columns = {column.name: column for column in RUN_LEDGER.columns}
    assert all(columns[name].nullable for name in COSTS.values())


def test_rows_without_an_answer_are_to_be_retried_where_a_call_failed() -> None:
    frames = [
        pl.DataFrame({"status": ["ok", "failed", "partial", "none", "not_attempted"]}),
        pl.DataFrame({"value": [1]}),
        pl.DataFrame({"status": ["failed"]}),
    ]
    assert rows_to_retry(frames, {"llm_calls_failed": 1}) == 3
    assert rows_to_retry(frames, {"llm_calls_failed": 0}) == 0
    assert rows_to_retry(frames, {}) == 0
