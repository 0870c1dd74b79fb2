"""How well answers tell two sorts of contexts apart: AUROC, balanced accuracy, their intervals.

    AUROC = P(positive > negative) + ½ P(equal)
    balanced accuracy = ½ P(positive > 0.5) + ½ P(negative ≤ 0.5)

The intervals are of a stratified percentile bootstrap: positives and negatives are resampled apart,
the same resamples for both scores. A handful of contexts that are told apart without a fault have
the interval [1, 1]: their number belongs beside it. Where answers come from is judging.py.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata


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


def bootstrap_intervals(
    positive: Float[np.ndarray, " p"],
    negative: Float[np.ndarray, " n"],
    *,
    n_bootstrap: int,
    confidence: float,
    seed: int,
) -> Intervals | None:
    """Intervals of AUROC and balanced accuracy from the same resamples; None without resamples."""
    if not n_bootstrap:
        return None
    wins = (np.sign(positive[:, None] - negative[None, :]) + 1) / 2
    generator = np.random.default_rng(seed)
    counts = [generator.multinomial(n, np.full(n, 1 / n), size=n_bootstrap) for n in wins.shape]
    # Sums of halves, divided last: a faultless score has the interval [1, 1] to the last digit.
    aurocs = np.einsum("bp,pn,bn->b", counts[0], wins, counts[1]) / wins.size
    rates = [
        drawn @ is_right / len(is_right)
        for drawn, is_right in zip(counts, _is_right(positive, negative), strict=True)
    ]
    shares = [(1 - confidence) / 2, (1 + confidence) / 2]
    ends = [np.quantile(resampled, shares) for resampled in (aurocs, sum(rates) / 2)]
    return Intervals(*((float(low), float(high)) for low, high in ends))


def _is_right(
    positive: Float[np.ndarray, " p"], negative: Float[np.ndarray, " n"]
) -> tuple[Bool[np.ndarray, " p"], Bool[np.ndarray, " n"]]:
    """Above 0.5 an answer says that the context fits."""
    return positive > 0.5, negative <= 0.5
