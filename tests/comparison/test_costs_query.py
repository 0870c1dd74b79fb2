"""What the rows of a fit that stand now cost, from planted ledgers, calls and fits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import duckdb
import polars as pl
import pytest

from assets.comparison.costs_query import COSTS_QUERY
from assets.factorization.tables import FACTORIZATIONS
from assets.labels.tables import LLM_CALLS
from assets.ledger.tables import RUN_LEDGER
from assets.shared.schema import Table

SITE = "toy:tiny@L00.mlp_hidden"
FIT = "snmf-k004"


def ran(decision: str = "computed", asset: str = "labels", fit: str = FIT, **figures: Any) -> dict:
    return {"decision": decision, "asset": asset, "partition": f"{SITE} | {fit}", **figures}


def asked(seconds: float, made: int, reused: int, rows_reused: int | None, **more: Any) -> dict:
    """A run of labels that made calls and had some from the cache."""
    return ran(
        seconds=seconds,
        llm_calls_made=made,
        llm_calls_reused=reused,
        rows_reused=rows_reused,
        **more,
    )


def call(request: str, usd: float | None, *, reused: bool = False, **more: Any) -> dict:
    given = {"fit": FIT, "stage": "labels", "status": "ok", "reply": "{}", "usd_of_answer": usd}
    paid = 0.0 if reused else usd
    return given | {"request_hash": request, "usd": paid, "was_reused": reused} | more


def costs(
    runs: Sequence[dict], calls: Sequence[dict] = (), fits: Sequence[dict] = ()
) -> dict[str, dict[str, Any]]:
    """Costs by fit; runs are oldest first, each made of what the one before left."""
    left: dict[tuple[str, str], str] = {}
    ledger = []
    for index, run in enumerate(runs):
        key = (run["asset"], run["partition"])
        row = {"fingerprint_before": left.get(key), "fingerprint": f"made {index}"} | run
        if run["decision"] == "computed":
            left[key] = row["fingerprint"]
        ledger.append(row | {"considered_at": datetime(2026, 1, 1) + timedelta(days=index)})
    connection = duckdb.connect()
    given = ((RUN_LEDGER, ledger), (LLM_CALLS, calls), (FACTORIZATIONS, fits))
    for table, rows in given:
        connection.register(table.name, frame(table, rows).to_arrow())
    found = connection.execute(COSTS_QUERY, {"site": SITE}).pl()
    return {row["fit"]: row for row in found.to_dicts()}


def frame(table: Table, rows: Sequence[dict]) -> pl.DataFrame:
    schema = {column.name: column.polars_type for column in table.columns}
    return pl.DataFrame(
        [{"site": SITE} | row for row in rows], schema=schema if not rows else None
    ).pipe(
        lambda f: f.select(
            (pl.col(n) if n in f.columns else pl.lit(None)).cast(t).alias(n)
            for n, t in schema.items()
        )
    )


def test_answers_from_the_cache_keep_the_seconds_and_the_price_of_when_they_were_made() -> None:
    calls = [call("a", 0.5, reused=True), call("b", 1.5, reused=True)]
    found = costs([asked(30.0, 2, 0, 0), asked(3.0, 0, 2, 5), ran("reused", seconds=9.0)], calls)
    assert (found[FIT]["seconds"], found[FIT]["usd"]) == (33.0, 2.0)
    # Also where every row came out new from the old answers.
    found = costs([asked(30.0, 2, 0, 0), asked(3.0, 0, 2, 0)], calls)
    assert found[FIT]["seconds"] == 33.0


def test_what_was_made_and_replaced_is_in_neither() -> None:
    """Another endpoint: every call is made anew, and the first ones stand behind nothing."""
    found = costs([asked(83.0, 40, 0, 0), asked(71.0, 44, 0, 0)], [call("new", 0.0062)])
    assert (found[FIT]["seconds"], found[FIT]["usd"]) == (71.0, 0.0062)


def test_runs_that_failed_on_the_way_count_and_those_since_do_not() -> None:
    runs = [
        ran("failed", seconds=6.0, llm_calls_made=5),
        ran("over_budget", seconds=5.0, llm_calls_made=9),
        asked(4.0, 2, 14, 0),
        ran("skipped", seconds=100.0),
        ran("failed", seconds=200.0, llm_calls_made=5),
    ]
    assert costs(runs)[FIT]["seconds"] == 15.0


def test_an_asset_that_has_nothing_to_take_over_takes_what_its_newest_run_took() -> None:
    runs = [
        ran(asset="catalogue", seconds=4.0, rows_reused=0),
        ran(asset="catalogue", seconds=5.0, rows_reused=7),
        ran(asset="steering", seconds=50.0, forward_tokens=900, rows_reused=0),
        ran(asset="steering", seconds=6.0, forward_tokens=90, rows_reused=7),
    ]
    assert costs(runs)[FIT]["seconds"] == 5.0 + 56.0


def test_rows_put_back_were_made_by_the_run_before() -> None:
    first = ran(asset="catalogue", seconds=4.0, rows_reused=0, fingerprint="same")
    back = ran(asset="catalogue", seconds=1.0, rows_reused=0, fingerprint="same")
    assert costs([first, back])[FIT]["seconds"] == 5.0


def test_seconds_are_unknown_where_rows_are_of_runs_that_the_ledger_lacks() -> None:
    catalogue = ran(asset="catalogue", seconds=4.0, rows_reused=0)
    found = costs([asked(3.0, 0, 9, 5, fingerprint_before="lost"), catalogue])[FIT]
    assert found["seconds"] is None
    assert found["seconds_reason"] == (
        "rows of labels were taken over from runs that the ledger lacks"
    )
    assert found["usd"] == 0.0 and found["usd_reason"] is None


def test_the_price_is_of_distinct_calls_and_each_fit_has_that_of_the_calls_they_share() -> None:
    calls = [
        call("a", 0.5),
        call("a", 0.5, reused=True),
        call("a", 0.5, reused=True, stage="steering"),
        call("a", 0.5, reused=True, fit="pca-k004"),
        call("a", 9.0, site="toy:tiny@L01.mlp_hidden"),
        call("lost", None, status="failed", reply=None),
        call("refused", 0.25, status="failed", reply="I will not"),
    ]
    found = costs([ran(seconds=1.0), ran(seconds=1.0, fit="pca-k004")], calls)
    assert {fit: row["usd"] for fit, row in found.items()} == {FIT: 0.75, "pca-k004": 0.5}


def test_one_call_of_unknown_price_leaves_the_whole_unknown() -> None:
    old = call("b", None, reused=True)
    found = costs([ran(seconds=1.0)], [call("a", 0.5), old])[FIT]
    assert found["usd"] is None
    assert found["usd_reason"] == "the price of 1 calls in llm_calls is not known"
    # A row of before, of a call that was made in its run, has its price.
    before = call("b", None) | {"usd": 0.25}
    assert costs([ran(seconds=1.0)], [call("a", 0.5), before])[FIT]["usd"] == 0.75


@pytest.mark.parametrize(
    ("start", "seconds", "reason"),
    [
        ("cold", 8.0, None),
        ("warm", None, "the fit went on from an earlier one (start warm)"),
        ("projected", None, "the fit went on from an earlier one (start projected)"),
        (None, 8.0, None),
    ],
)
def test_the_fit_alone_has_seconds_of_its_own_if_it_began_cold(
    start: str | None, seconds: float | None, reason: str | None
) -> None:
    runs = [
        ran(asset="factorization", seconds=9.0, rows_reused=0),
        ran(asset="factorization", seconds=2.0, rows_reused=0),
    ]
    found = costs(runs, fits=[{"fit": FIT, "start": start, "seconds": 8.0}])[FIT]
    assert (found["fit_seconds"], found["fit_seconds_reason"]) == (seconds, reason)
    # One that went on from an earlier fit took what both took.
    assert found["seconds"] == (2.0 if seconds else 11.0)
