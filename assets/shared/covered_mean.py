"""A mean never stands alone: beside it how many rows it is over, and which share that is.

A mean over the rows that have a value says nothing of those that failed. Coverage is the share of
the attempted rows (status other than not_attempted, where there is a status) that have one. What
was tried and cannot be had (not_reached, undefined) was attempted: leaving it out would show the
mean of those it went well for as that of all.
"""

from __future__ import annotations

import polars as pl


def covered_mean(frame: pl.DataFrame, column: str, name: str | None = None) -> dict[str, float]:
    """`{name, name_n, name_coverage}` of a column; `name` is `mean_<column>` if not given.

    NULL and NaN are no values. Without a value there is no mean, and without an attempted row no
    coverage: the keys are left out, as 0 would be a lie.
    """
    name = name or f"mean_{column}"
    attempted = frame
    if "status" in frame.columns:
        attempted = frame.filter(pl.col("status").is_null() | (pl.col("status") != "not_attempted"))
    values = attempted[column].cast(pl.Float64).fill_nan(None).drop_nulls()
    shown: dict[str, float] = {f"{name}_n": len(values)}
    if len(attempted):
        shown[f"{name}_coverage"] = len(values) / len(attempted)
    if len(values):
        shown = {name: float(values.to_numpy().mean()), **shown}
    return shown
