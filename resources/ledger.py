"""The ledger read and written: what each asset partition was last made from, and what was decided.

A row with `versions` is a state: from it come the fingerprint to compare with, the versions of the
inputs of later stages, and the costs that a plan expects. Rows without (failures, skips, reuse)
tell what happened. Rows are only ever added.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from assets.ledger.reasons import reason_for, retry_reason, rows_reason
from assets.ledger.tables import RUN_LEDGER
from resources.lake import Lake
from resources.lake_commit import Commit

# After so many runs with the same parts, rows that failed each time are left as they are.
MOST_ATTEMPTS = 3


@dataclass(frozen=True)
class Entry:
    """One row of `run_ledger`; None where a figure does not apply."""

    study: str
    run_id: str
    asset: str
    partition: str
    decision: str
    reason: str
    fingerprint_before: str | None = None
    fingerprint: str | None = None
    parts: Mapping[str, str] | None = None
    versions: Mapping[str, Mapping[str, str]] | None = None
    rows_in: int | None = None
    rows_out: int | None = None
    rows_reused: int | None = None
    rows_computed: int | None = None
    rows_to_retry: int | None = None
    attempt: int | None = None
    forward_tokens: int | None = None
    llm_calls_made: int | None = None
    llm_calls_reused: int | None = None
    llm_calls_failed: int | None = None
    llm_tokens: int | None = None
    usd: float | None = None
    seconds: float | None = None
    data_snapshot: int | None = None

    @property
    def wants_retry(self) -> bool:
        """Whether rows failed that another run may mend, and it is worth another try."""
        return bool(self.rows_to_retry) and (self.attempt or 1) < MOST_ATTEMPTS

    def made_invalid(self, run_id: str, decision: str, reason: str) -> Entry:
        """The entry after which the partition is to be made again, though nothing changed."""
        return Entry(
            study=self.study,
            run_id=run_id,
            asset=self.asset,
            partition=self.partition,
            decision=decision,
            reason=reason,
            fingerprint_before=self.fingerprint,
            parts=self.parts,
            versions=self.versions,
            rows_in=self.rows_out,
            rows_out=self.rows_out,
            data_snapshot=self.data_snapshot,
        )


def reason_to_make(
    before: Entry | None, parts: Mapping[str, str], fingerprint: str, n_rows: Callable[[Entry], int]
) -> str | None:
    """Why a partition is made from `parts`, in words; None where its rows are what they make.

    `before` is its state, `fingerprint` that of `parts`; `n_rows(before)` counts the rows that are
    there, where that decides. The plan and the assets' own guard both go by this.
    """
    if before is None:
        return reason_for(None, parts)
    if before.fingerprint is None:
        return f"{before.decision} before: {before.reason}"
    if before.fingerprint != fingerprint:
        return reason_for(before.parts, parts)
    if before.wants_retry:
        return retry_reason(before.rows_to_retry or 0, (before.attempt or 1) + 1)
    n_written = before.rows_out or 0
    n_there = n_rows(before)
    return None if n_there == n_written else rows_reason(n_written, n_there)


def versions_in(states: Iterable[Entry], table: str) -> Mapping[str, str] | None:
    """Versions of a table's columns by the states of a partition; None where none wrote it."""
    for entry in states:
        if entry.versions is not None and table in entry.versions:
            return entry.versions[table]
    return None


def ledger_frame(entries: Iterable[Entry]) -> pl.DataFrame:
    """Entries as rows of `run_ledger`, considered now."""
    now = datetime.now(UTC)
    rows: list[dict[str, Any]] = []
    for entry in entries:
        row = asdict(entry) | {"considered_at": now}
        for name in ("parts", "versions"):
            row[name] = None if row[name] is None else json.dumps(row[name], sort_keys=True)
        rows.append(row)
    schema = {column.name: column.polars_type for column in RUN_LEDGER.columns}
    return pl.DataFrame(rows, schema=schema)


class Ledger:
    """The ledger of one lake."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        lake.ensure_tables([RUN_LEDGER])

    def states(self, study: str | None = None) -> dict[tuple[str, str], Entry]:
        """The states of all asset partitions, or of one study's, by (asset, partition)."""
        return self._states("true", []) if study is None else self._states("study = ?", [study])

    def states_of(self, partition: str) -> dict[tuple[str, str], Entry]:
        """The states of one partition's assets."""
        return self._states('"partition" = ?', [partition])

    def spent_in(self, *run_ids: str) -> dict[str, Any]:
        """LLM calls and USD that runs have spent so far (unknown prices left out)."""
        calls, usd = self.lake.query(
            "SELECT coalesce(sum(llm_calls_made), 0)::BIGINT, coalesce(sum(usd), 0.0) "
            f"FROM {RUN_LEDGER.name} WHERE list_contains(?, run_id)",
            [list(run_ids)],
        ).row(0)
        return {"calls": calls, "usd": usd}

    def decisions_in(self, run_id: str) -> dict[str, str]:
        """What a run of a stage job decided about each asset that it came to."""
        return dict(
            self.lake.query(
                f"SELECT asset, decision FROM {RUN_LEDGER.name} WHERE run_id = ? "
                "ORDER BY considered_at",
                [run_id],
            ).iter_rows()
        )

    def append(self, entries: Iterable[Entry], *, run_id: str) -> None:
        """Add rows in one commit of their own; nothing happens without entries."""
        frame = ledger_frame(entries)
        if len(frame):
            commit = Commit(RUN_LEDGER.name, f"{len(frame)} decisions", run_id)
            self.lake.append({RUN_LEDGER: frame}, commit)

    def _states(self, condition: str, values: list[Any]) -> dict[tuple[str, str], Entry]:
        frame = self.lake.query(
            f"SELECT * EXCLUDE (considered_at) FROM {RUN_LEDGER.name} "
            f"WHERE versions IS NOT NULL AND {condition} QUALIFY row_number() OVER "
            '(PARTITION BY asset, "partition" ORDER BY considered_at DESC) = 1',
            values,
        )
        return {(row["asset"], row["partition"]): _entry(row) for row in frame.to_dicts()}


def _entry(row: Mapping[str, Any]) -> Entry:
    parsed = {name: row[name] and json.loads(row[name]) for name in ("parts", "versions")}
    return Entry(**{**row, **parsed})
