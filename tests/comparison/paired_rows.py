"""Rows of `paired_tests` of planted fits, checked against their declaration."""

from __future__ import annotations

import polars as pl

from assets.comparison.config import ComparisonConfig
from assets.comparison.fits import ComparedFit
from assets.comparison.paired_tests import paired_test_rows
from assets.comparison.tables import PAIRED_TESTS
from tests.comparison.planted_fits import NOT_SHUFFLED, PARTITION

CONFIG = ComparisonConfig(n_bootstrap=200)
# The rows of two fits, not of one against its own shuffled labels or nulls.
OF_FITS = pl.col("fit_a") != pl.col("fit_b")


def checked_rows(
    fits: list[ComparedFit],
    shuffled: pl.DataFrame = NOT_SHUFFLED,
    config: ComparisonConfig = CONFIG,
) -> pl.DataFrame:
    """All tests of these fits; `shuffled` are scores of labels by shuffled ones."""
    rows = paired_test_rows(fits, shuffled, config)
    PAIRED_TESTS.conform(rows, PARTITION)
    return rows


def by_fit(rows: pl.DataFrame, pairing: str) -> dict[str, dict]:
    """The tests of one pairing within fits, by fit."""
    return {row["fit_a"]: row for row in rows.filter(pairing=pairing).to_dicts()}
