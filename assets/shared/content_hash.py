"""Data versions: hashes of what a table's rows say, one a column.

A materialization that writes the same content again has the same versions, whatever run, file or
snapshot holds it, so what reads it need not run. Rows are hashed in key order; columns declared
`is_volatile` (wall time, price of this very run, where a fit went on from) are left out. A reader
that depends on some columns alone combines theirs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import polars as pl

from assets.shared.schema import Table

DIGITS = 16
# Rows written as JSON at a time, where a column has no plain memory layout.
JSON_CHUNK = 50_000


def column_versions(frame: pl.DataFrame, table: Table) -> dict[str, str]:
    """Hash (16 hex digits) of each column of `frame` that is not volatile, rows in key order.

    Values count as the declared types hold them, so a frame has the same versions before it is
    written and when it is read back.
    """
    key = [name for name in table.key if name in frame.columns]
    ordered = frame.sort(key) if key else frame
    return {
        column.name: _series_hash(ordered[column.name].cast(column.polars_type, strict=False))
        for column in table.columns
        if column.name in frame.columns and not column.is_volatile
    }


def data_version(versions: Mapping[str, str], columns: Iterable[str] | None = None) -> str:
    """One hash of the versions of `columns`, or of all; KeyError for a column without one."""
    chosen = sorted(versions) if columns is None else sorted(columns)
    text = "".join(f"{name}={versions[name]};" for name in chosen)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def _series_hash(values: pl.Series) -> str:
    digest = hashlib.sha256(f"{values.dtype}|{len(values)}|".encode())
    digest.update(values.is_null().to_numpy().tobytes())
    if values.dtype.is_numeric() or values.dtype.is_temporal():
        digest.update(values.to_physical().fill_null(0).to_numpy().tobytes())
    elif values.dtype == pl.Boolean:
        digest.update(values.fill_null(False).to_numpy().tobytes())
    else:
        for begin in range(0, len(values), JSON_CHUNK):
            part = values[begin : begin + JSON_CHUNK].alias("v").to_frame()
            digest.update(part.write_ndjson().encode())
    return digest.hexdigest()[:DIGITS]
