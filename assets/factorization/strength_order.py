"""The order in which features are judged where a study caps how many are: strongest first.

A feature's strength is its share of energy, the sum of its squared coefficients over tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import polars as pl


class LimitedStage(Protocol):
    """The settings of a stage that takes so many features of a fit, and so many of a control."""

    @property
    def max_features(self) -> int | None: ...
    @property
    def max_features_controls(self) -> int | None: ...


@dataclass(frozen=True)
class FeatureLimit:
    """How many features a stage takes of a fit (None: all), and the study's option that says so."""

    option: str
    n: int | None

    @property
    def beyond(self) -> str:
        """Why a feature was not taken."""
        return f"beyond {self.option}={self.n}, strongest first"


def feature_limit(stage: str, settings: LimitedStage, is_control: bool) -> FeatureLimit:
    """The limit that counts for a fit. `stage` is the study's section of the settings."""
    if is_control:
        return FeatureLimit(f"{stage}.max_features_controls", settings.max_features_controls)
    return FeatureLimit(f"{stage}.max_features", settings.max_features)


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
