"""Rows that are the same as before: equal in every column that is content.

What is no content (`is_volatile`: time, price, history) and the partition's own columns are left
out, as in data versions (shared/content_hash.py). A row made anew that came out equal is the same
row: what making it cost is in the ledger's forward tokens and LLM calls.
"""

from __future__ import annotations

import polars as pl

from assets.shared.schema import Table


def content_columns(table: Table) -> list[str]:
    """Columns in which two rows of a partition must agree to be equal."""
    return [
        column.name
        for column in table.columns
        if not column.is_volatile and column.name not in table.partition_by
    ]


def n_equal_rows(before: pl.DataFrame, now: pl.DataFrame, table: Table) -> int:
    """How many rows of `now` are in `before`, both of one partition of `table`.

    Keys are unique, so no row is counted for two. Compared are 64-bit hashes: of 400,000 rows,
    a changed one is taken for an equal one with a chance of 2e-14.
    """
    return int(_hashes(now, table).is_in(_hashes(before, table).implode()).sum())


def _hashes(frame: pl.DataFrame, table: Table) -> pl.Series:
    # As the declared types hold them, so that rows to be written equal those read back.
    types = {column.name: column.polars_type for column in table.columns}
    return frame.select(
        pl.col(name).cast(types[name], strict=False) for name in content_columns(table)
    ).hash_rows()
