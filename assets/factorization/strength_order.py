"""The order in which features are judged where a study caps how many are: strongest first.

A feature's strength is its share of energy, the sum of its squared coefficients over tokens.
"""

from __future__ import annotations

import polars as pl


def strongest_features(coefficients: pl.DataFrame, limit: int | None) -> list[int]:
    """Ids of the `limit` features (None: all) of largest energy, largest first.

    `coefficients` has columns feature_id and coefficient; features that never fire aren't named.
    Equal energies are ordered by id.
    """
    energy = (
        coefficients.group_by("feature_id")
        .agg(energy=(pl.col("coefficient").cast(pl.Float64) ** 2).sum())
        .sort("energy", "feature_id", descending=[True, False])
    )
    return energy["feature_id"].head(limit if limit is not None else len(energy)).to_list()
