"""How well answers tell two sorts of contexts apart: AUROC, balanced accuracy, their intervals.

    AUROC = P(positive > negative) + ½ P(equal)
    balanced accuracy = ½ P(positive > 0.5) + ½ P(negative ≤ 0.5)

Their intervals take contexts as independent draws, and hold at a handful of them: of the AUROC
Newcombe's score-type interval, of the balanced accuracy Wilson's of both rates, combined
(assets/shared/small_sample_intervals.py). Fuzzing's random negatives are the positives' contexts
marked otherwise: what both have in common cancels out, so the intervals are too wide rather than
too narrow there. Where answers come from is judging.py.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from assets.shared.small_sample_intervals import auroc_interval, mean_rate_interval


class Intervals(NamedTuple):
    """Low and high end of a label's scores."""

    auroc: tuple[float, float]
    balanced_accuracy: tuple[float, float]


def auroc(positive: Float[np.ndarray, " p"], negative: Float[np.ndarray, " n"]) -> float:
    """P(positive > negative) + ½ P(equal)."""
    ranks = rankdata(np.concatenate([positive, negative]))[: len(positive)]
    n = len(positive)
    return float((ranks.sum() - n * (n + 1) / 2) / (n * len(negative)))


def balanced_accuracy(
    positive: Float[np.ndarray, " p"], negative: Float[np.ndarray, " n"]
) -> float:
    """Mean of the hit rates; above 0.5 an answer says that the context fits."""
    return float(sum(right.mean() for right in _is_right(positive, negative)) / 2)


def score_intervals(
    positive: Float[np.ndarray, " p"], negative: Float[np.ndarray, " n"], confidence: float
) -> Intervals:
    """Intervals of AUROC and balanced accuracy."""
    sizes = len(positive), len(negative)
    n_right = [int(right.sum()) for right in _is_right(positive, negative)]
    return Intervals(
        auroc_interval(auroc(positive, negative), *sizes, confidence),
        mean_rate_interval((n_right[0], n_right[1]), sizes, confidence),
    )


def _is_right(
    positive: Float[np.ndarray, " p"], negative: Float[np.ndarray, " n"]
) -> tuple[Bool[np.ndarray, " p"], Bool[np.ndarray, " n"]]:
    """Above 0.5 an answer says that the context fits."""
    return positive > 0.5, negative <= 0.5
