"""Intervals over features or pairs: t of a mean, percentile bootstrap of a median.

Features are the units: an interval says how far the mean would move with other features of the same
dictionary. It says nothing of another seed, corpus or judge.

The bootstrap of a median covers what it says to 1 or 2 % from the number of pairs on at which the
interval from the smallest to the largest does, 1 - 2 / 2^n (6 for 95 %); with fewer there is none.
Nor is there one of values that show no spread.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy.stats import bootstrap

from assets.comparison.config import ComparisonConfig
from assets.shared.small_sample_intervals import mean_of, t_interval

NUMBERS_AT_ONCE = 4_000_000


def interval_of_mean(
    values: Float[np.ndarray, " n"], config: ComparisonConfig
) -> tuple[float | None, float | None]:
    """Low and high end; None for one value, or values all alike."""
    return t_interval(mean_of(values), config.confidence) or (None, None)


def interval_of_median(
    values: Float[np.ndarray, " n"], config: ComparisonConfig
) -> tuple[float | None, float | None]:
    """Low and high end; None for too few values, without resamples, or where these are alike."""
    if len(values) < fewest_for_median(config.confidence) or not config.n_bootstrap:
        return None, None
    found = bootstrap(
        (values,),
        np.median,
        n_resamples=config.n_bootstrap,
        batch=max(1, NUMBERS_AT_ONCE // len(values)),
        confidence_level=config.confidence,
        method="percentile",
        rng=np.random.default_rng(config.seed),
    ).confidence_interval
    low, high = float(found.low), float(found.high)
    return (low, high) if low < high else (None, None)


def fewest_for_median(confidence: float) -> int:
    """The least n whose smallest and largest value hold the median between them so often."""
    return math.ceil(1 - math.log2(1 - confidence))
