"""Strongest first, by energy; ties by id; features that never fire are not named."""

import polars as pl

from assets.factorization.strength_order import strongest_features

COEFFICIENTS = pl.DataFrame(
    {"feature_id": [4, 4, 1, 2, 2, 2], "coefficient": [1.0, 1.0, 3.0, 1.0, 1.0, 0.0]}
)


def test_energy_orders_the_features() -> None:
    assert strongest_features(COEFFICIENTS, None) == [1, 2, 4]
    assert strongest_features(COEFFICIENTS, 2) == [1, 2]
    assert strongest_features(COEFFICIENTS, 0) == []
    assert strongest_features(COEFFICIENTS.clear(), 3) == []
