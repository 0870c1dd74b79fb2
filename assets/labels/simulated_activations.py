"""How well rated activations follow the true ones: Pearson's correlation over words, its interval.

    r = Σ (x − x̄)(y − ȳ) / √(Σ (x − x̄)² · Σ (y − ȳ)²)

over all words of a label's contexts, x the true coefficients and y the judge's expected ratings
(Bills et al. 2023, "Language models can explain neurons in language models", correlation scoring).
Words of a context are no independent draws, so the percentile bootstrap resamples whole contexts,
held-out ones and negatives apart; resamples in which nothing varies are left out. What is asked
stands in score_questions.py, reading one rating in judging.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

# Of the largest coefficient, and in ratings: less is rounding of the judge's probabilities.
_LEAST_SPREAD = 1e-6


class Correlation(NamedTuple):
    """r and its interval; where r is undefined, the reason."""

    r: float | None = None
    interval: tuple[float, float] | None = None
    reason: str | None = None


def rating_correlation(
    true: Float[np.ndarray, " n_words"],
    ratings: Float[np.ndarray, " n_words"],
    contexts: Sequence[tuple[str, str]],
    *,
    n_bootstrap: int,
    confidence: float,
    seed: int,
) -> Correlation:
    """Correlation of ratings (0 to 9) with true coefficients over words.

    `contexts` has the sort of sample and the document of each word. Without resamples in which both
    vary there is no interval.
    """
    largest = float(np.abs(true).max())
    for what, values, scale in (("coefficients", true, largest), ("ratings", ratings, 1.0)):
        if np.ptp(values) <= _LEAST_SPREAD * scale:
            reason = f"all {len(values)} {what} are equal: a correlation is undefined"
            return Correlation(reason=reason)
    moments = _moments(true, ratings)
    r = float(_pearson(moments.sum(axis=0)).clip(-1, 1))
    if not n_bootstrap:
        return Correlation(r)
    names = list(dict.fromkeys(contexts))
    place = {name: i for i, name in enumerate(names)}
    of_context = np.zeros((len(names), moments.shape[1]))
    np.add.at(of_context, [place[name] for name in contexts], moments)
    sorts = np.array([list(dict.fromkeys(sort for sort, _ in names)).index(s) for s, _ in names])
    times = _stratified_draws(sorts, n_bootstrap, seed)
    resampled = _pearson(times @ of_context)
    defined = resampled[np.isfinite(resampled)]
    if not len(defined):
        return Correlation(r)
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2]).clip(-1, 1)
    return Correlation(r, (float(low), float(high)))


def _moments(
    true: Float[np.ndarray, " n_words"], ratings: Float[np.ndarray, " n_words"]
) -> Float[np.ndarray, "n_words 6"]:
    """1, x, y, x², y², xy of every word, standardized first: sums of them lose no digits."""
    x, y = ((values - values.mean()) / values.std() for values in (true, ratings))
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)


def _pearson(sums: Float[np.ndarray, "*draws 6"]) -> Float[np.ndarray, "*draws"]:
    """r of summed moments; NaN where x or y does not vary."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    spread_x, spread_y = n * xx - x * x, n * yy - y * y
    least = _LEAST_SPREAD * n * n
    varies = (spread_x > least) & (spread_y > least)
    product = np.where(varies, spread_x * spread_y, 1.0)
    return np.where(varies, (n * xy - x * y) / np.sqrt(product), np.nan)


def _stratified_draws(
    sorts: Int[np.ndarray, " n_contexts"], n_bootstrap: int, seed: int
) -> Int[np.ndarray, "n_bootstrap n_contexts"]:
    """How often each context is drawn in each resample, each sort of context by itself."""
    generator = np.random.default_rng(seed)
    times = np.zeros((n_bootstrap, len(sorts)), dtype=np.int64)
    for sort in np.unique(sorts):
        members = np.flatnonzero(sorts == sort)
        share = np.full(len(members), 1 / len(members))
        times[:, members] = generator.multinomial(len(members), share, size=n_bootstrap)
    return times
