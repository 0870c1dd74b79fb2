"""Strongest first, by energy; ties by id; features that never fire are not named."""

import polars as pl

from assets.factorization.strength_order import feature_limit, strongest_features
from assets.labels.config import LabelsConfig

COEFFICIENTS = pl.DataFrame(
    {"feature_id": [4, 4, 1, 2, 2, 2], "coefficient": [1.0, 1.0, 3.0, 1.0, 1.0, 0.0]}
)


def test_energy_orders_the_features() -> None:
    assert strongest_features(COEFFICIENTS, None) == [1, 2, 4]
    assert strongest_features(COEFFICIENTS, 2) == [1, 2]
    assert strongest_features(COEFFICIENTS, 0) == []
    assert strongest_features(COEFFICIENTS.clear(), 3) == []


def test_controls_have_a_limit_of_their_own_and_its_name_is_the_reason() -> None:
    settings = LabelsConfig(max_features=6, max_features_controls=3)
    assert feature_limit("labels", settings, False).n == 6
    control = feature_limit("labels", settings, True)
    assert (control.n, control.beyond) == (
        3,
        "beyond labels.max_features_controls=3, strongest first",
    )
