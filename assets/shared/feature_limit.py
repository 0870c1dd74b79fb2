"""How many features of a fit a stage takes up, and what it says of the others.

A null control has a limit of its own. Which features come first is strength_order.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


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
