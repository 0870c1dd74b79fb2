"""Who made the rows of a partition: snapshot, time, run, code, fingerprint, and the reason.

Everything is read at one version of the lake, so that what is said fits together, and nothing is
written: a table that the lake lacks has no rows. The snapshot comes from the rows themselves
(DuckLake keeps it with each), the rest from the ledger's entry of that snapshot; where there is
none, as in lakes from before the ledger, from the commit, as long as the snapshot is held.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

import duckdb
import polars as pl

from assets.ledger.tables import RUN_LEDGER
from assets.shared.schema import Table
from resources.lake import Lake
from resources.lake_versions import SNAPSHOTS, source_at

BEFORE_THE_LEDGER = "made before there was a ledger"


@dataclass(frozen=True)
class Made:
    """How a partition's rows of one table came to be; None where nothing tells."""

    table: str
    partition: str
    snapshot: int | None = None
    is_snapshot_held: bool = False
    written_at: datetime | None = None
    run_id: str | None = None
    asset: str | None = None
    reason: str | None = None
    code_version: str | None = None
    fingerprint: str | None = None
    last_decision: str | None = None
    last_considered_at: datetime | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    is_in_ledger: bool = False


class LakeAtVersion:
    """The lake's rows at one snapshot, and how they came to be."""

    def __init__(self, lake: Lake, snapshot: int) -> None:
        self.lake = lake
        self.snapshot = snapshot
        self._entries: dict[str, list[dict[str, Any]]] = {}

    def frame(
        self,
        table: Table,
        where: Mapping[str, Any],
        *,
        any_of: Mapping[str, Sequence[Any]] | None = None,
        version: int | None = None,
    ) -> pl.DataFrame:
        """Rows whose columns equal `where` and are among `any_of`, in key order.

        `version` reads an older snapshot; LakeError where it was expired.
        """
        with contextlib.closing(self.lake.connect()) as cursor:
            source = source_at(cursor, table, self.snapshot if version is None else version)
        among = any_of or {}
        conditions = [f'"{name}" = ?' for name in where]
        conditions += [f'list_contains(?, "{name}")' for name in among]
        order = ", ".join(f'"{name}"' for name in table.key)
        return self.lake.query(
            f"SELECT * FROM {source} WHERE {' AND '.join(conditions) or 'true'} ORDER BY {order}",
            [*where.values(), *map(list, among.values())],
        )

    def rows(self, table: Table, where: Mapping[str, Any], **options: Any) -> list[dict[str, Any]]:
        """`frame`, as dicts."""
        return self.frame(table, where, **options).to_dicts()

    def is_held(self, snapshot: int) -> bool:
        """Whether the lake still holds a version."""
        return snapshot in self._held

    def made(self, table: Table, partition: Mapping[str, str]) -> Made:
        """How the rows of `table` in a partition (its columns and values) came to be."""
        where = {name: partition[name] for name in table.partition_by}
        text = " | ".join(where.values())
        entries = self._entries_of(table.name, text)
        states = [entry for entry in entries if entry["versions"] is not None]
        snapshot = self._snapshot_of(table, where)
        if snapshot is None and states:
            snapshot = states[-1]["data_snapshot"]
        commit = self._commit(snapshot)
        known = Made(
            table=table.name,
            partition=text,
            snapshot=snapshot,
            is_snapshot_held=snapshot is not None and self.is_held(snapshot),
            written_at=commit.get("time"),
            run_id=commit.get("run_id"),
            fingerprint=commit.get("fingerprint"),
        )
        of_rows = [entry for entry in states if entry["data_snapshot"] == snapshot]
        if not of_rows:
            return known
        # A later state of the same snapshot says that these very rows are what its parts make.
        first, last = of_rows[0], of_rows[-1]
        is_computed = first["decision"] == "computed"
        parts = json.loads(last["parts"] or "{}")
        return Made(
            table=table.name,
            partition=text,
            snapshot=snapshot,
            is_snapshot_held=known.is_snapshot_held,
            written_at=known.written_at or (first["considered_at"] if is_computed else None),
            run_id=first["run_id"] if is_computed else known.run_id,
            asset=last["asset"],
            reason=first["reason"] if is_computed else BEFORE_THE_LEDGER,
            code_version=parts.get("code"),
            fingerprint=last["fingerprint"],
            last_decision=entries[-1]["decision"],
            last_considered_at=entries[-1]["considered_at"],
            parts=parts,
            is_in_ledger=True,
        )

    def _entries_of(self, table: str, partition: str) -> list[dict[str, Any]]:
        """The ledger's rows about the asset that makes a table, oldest first."""
        if partition not in self._entries:
            found = self.frame(RUN_LEDGER, {"partition": partition}).sort("considered_at")
            self._entries[partition] = found.to_dicts()
        entries = self._entries[partition]
        assets = {
            entry["asset"]
            for entry in entries
            if entry["versions"] is not None and table in json.loads(entry["versions"])
        }
        return [entry for entry in entries if entry["asset"] in assets]

    def _snapshot_of(self, table: Table, where: Mapping[str, Any]) -> int | None:
        condition = " AND ".join(f'"{name}" = ?' for name in where) or "true"
        try:
            return self.lake.query(
                f'SELECT max(snapshot_id) FROM "{table.name}" AT (VERSION => {self.snapshot}) '
                f"WHERE {condition}",
                list(where.values()),
            ).item()
        except duckdb.CatalogException:
            return None  # the table was made later, or never

    def _commit(self, snapshot: int | None) -> dict[str, Any]:
        """Time, run and fingerprint that a held snapshot's commit carries."""
        if snapshot is None or not self.is_held(snapshot):
            return {}
        time, details = self.lake.query(
            f"SELECT snapshot_time, commit_extra_info FROM {SNAPSHOTS} WHERE snapshot_id = ?",
            [snapshot],
        ).row(0)
        return {"time": time, **json.loads(details or "{}")}

    @cached_property
    def _held(self) -> frozenset[int]:
        return frozenset(self.lake.query(f"SELECT snapshot_id FROM {SNAPSHOTS}")["snapshot_id"])
