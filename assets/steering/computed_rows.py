"""Rows of a steering table with what computing them took; of a rerun, how many were taken over."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True, kw_only=True)
class ComputedRows:
    """Rows of one table without its partition columns; work is that of this run alone.

    `layer_token_evaluations` counts one block on one token, `forward_tokens` tokens that entered
    the model.
    """

    rows: pl.DataFrame
    layer_token_evaluations: int
    forward_tokens: int
    rows_reused: int
    rows_computed: int
