"""What a lake holds, as content hashes of its tables, and what its ledger says of one run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import polars as pl

from assets.ledger.tables import RUN_LEDGER
from assets.shared.content_hash import column_versions
from orchestration.data_dictionary import all_tables
from resources.lake import Lake

DATA_TABLES = tuple(table for table in all_tables() if table != RUN_LEDGER)
# What says how a lake came to where it is: it differs between lakes of the same content.
HISTORY = frozenset({"catalogue_changes"})


def contents(lake: Lake) -> dict[str, dict[str, str]]:
    """Table → column → hash over the rows of all partitions; volatile columns are left out."""
    return {table.name: column_versions(lake.read(table), table) for table in DATA_TABLES}


def differing_columns(
    found: Mapping[str, Mapping[str, str]], expected: Mapping[str, Mapping[str, str]]
) -> dict[str, list[str]]:
    """Table → its columns whose content differs; tables that are equal are left out."""
    differing = {
        table: sorted(c for c in expected[table] if found[table].get(c) != expected[table][c])
        for table in expected
    }
    return {table: columns for table, columns in differing.items() if columns}


def ledger_since(lake: Lake, began: datetime) -> pl.DataFrame:
    """Rows of the ledger about what was considered since then (a time with its zone)."""
    lake.ensure_tables([RUN_LEDGER])
    return lake.query(f"SELECT * FROM {RUN_LEDGER.name} WHERE considered_at >= ?", [began])


def total(ledger: pl.DataFrame, column: str) -> int:
    """Sum of a cost over ledger rows; what reports none counts as 0."""
    return int(ledger[column].sum())


def decisions(ledger: pl.DataFrame) -> dict[str, set[str]]:
    """Asset → the decisions about its partitions."""
    grouped = ledger.group_by("asset").agg(pl.col("decision").unique())
    return {asset: set(of_asset) for asset, of_asset in grouped.iter_rows()}
