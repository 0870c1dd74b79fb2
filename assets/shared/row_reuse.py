"""Rows computed before, handed back where everything that determines them is still the same.

A row whose values cost forward passes carries `row_fingerprint`: a hash of all that determines
them (code version, model revision, settings, directions, token ids …). A rerun makes the
fingerprints of the rows it wants first, takes from the partition's previous rows those that carry
one of them, and computes the rest. A failed row is never taken: it may succeed now.

What determines a row is for its stage to say; reading the previous rows is for definitions.py.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable

import numpy as np
import polars as pl

from assets.shared.schema import Column

DIGITS = 16
RETRYABLE = ("failed",)
"""Statuses that another attempt may change; all others are results."""

ROW_FINGERPRINT = Column(
    "row_fingerprint",
    "VARCHAR",
    "Hash of all that determines the row's computed values; a rerun that wants the same takes the "
    "row as it is. NULL where nothing is computed, and in rows from before 0.3.0",
    nullable=True,
    # Moves with the code too; the values that others read may well be the same.
    is_volatile=True,
)


def row_fingerprint(*parts: str | int | float | bytes | np.ndarray | None) -> str:
    """Hash of `parts` in their order (16 hex digits of a sha256).

    Each part goes in with its type and length, so no two lists of parts run into one another: 1,
    1.0, "1" and b"1" differ, and so do ("ab", "c") and ("a", "bc"). An array counts with its
    dtype and shape (a tensor: `tensor.cpu().numpy()`). Raises TypeError for another type.
    """
    digest = hashlib.sha256()
    for part in parts:
        kind, content = _encoded(part)
        digest.update(f"{kind}:{len(content)}:".encode())
        digest.update(content)
    return digest.hexdigest()[:DIGITS]


def reusable_rows(
    previous: pl.DataFrame, fingerprints: Iterable[str], column: str = "row_fingerprint"
) -> dict[str, pl.DataFrame]:
    """Fingerprint → the rows of `previous` that carry it, for each of `fingerprints` found there.

    All rows of a fingerprint are taken together or not at all: one with a RETRYABLE status (column
    `status`, where there is one) leaves its fingerprint out. So does NULL: what a row was made from
    is then unknown. `previous` without `column` gives nothing.
    """
    if column not in previous.columns:
        return {}
    wanted = pl.Series(sorted(set(fingerprints)), dtype=pl.String)
    found = previous.filter(pl.col(column).is_in(wanted.implode()))
    if "status" in found.columns:
        retried = found.filter(pl.col("status").is_in(RETRYABLE))[column].unique()
        found = found.filter(~pl.col(column).is_in(retried.implode()))
    groups = found.partition_by(column, as_dict=True, maintain_order=True)
    return {str(key[0]): rows for key, rows in groups.items()}


def _encoded(part: str | int | float | bytes | np.ndarray | None) -> tuple[str, bytes]:
    if part is None:
        return "none", b""
    if isinstance(part, str):
        return "str", part.encode()
    if isinstance(part, bytes):
        return "bytes", part
    if isinstance(part, bool | int):
        return type(part).__name__, str(part).encode()
    if isinstance(part, float):
        return "float", struct.pack("<d", part)
    if isinstance(part, np.ndarray) and part.dtype.kind in "biuf":
        return f"array {part.dtype.str} {part.shape}", part.tobytes()
    raise TypeError(
        f"a row fingerprint is made of str, int, float, bytes, None and number arrays; found "
        f"{type(part).__name__}; turn it into one of these (a model: model_dump_json())"
    )
