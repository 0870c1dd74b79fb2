"""How well rated activations follow the true ones: Pearson's correlation over words, its interval.

    r = Σ (x − x̄)(y − ȳ) / √(Σ (x − x̄)² · Σ (y − ȳ)²)

over all words of a label's contexts, x the true coefficients and y the judge's expected ratings
(Bills et al. 2023, "Language models can explain neurons in language models", correlation scoring).
Words of a context are no independent draws, so the interval leaves out one context at a time: with
z = artanh r and z(c) that without context c, of n(s) contexts of sort s (held-out, negatives)

    z ± t·SE,  SE² = Σ over s of (n(s) − 1)/n(s) · Σ over c of (z(c) − mean of z(c) in s)²

the stratified jackknife (Wolter 2007, Introduction to variance estimation, sec. 4.5), t with the
degrees of freedom of the smaller sort, min n(s) − 1: those of both together are too many where one
sort varies more. What is asked stands in score_questions.py, reading one rating in judging.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student

# Of the largest coefficient, and in ratings: less is rounding of the judge's probabilities.
_LEAST_SPREAD = 1e-6
# A correlation beyond is 1 to rounding, and its z is none.
_MOST = 1 - 1e-12


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
    confidence: float,
) -> Correlation:
    """Correlation of ratings (0 to 9) with true coefficients over words.

    `contexts` has the sort of sample and the document of each word. There is no interval with one
    context of a sort, where without one nothing varies, or where each leaves r as it is.
    """
    largest = float(np.abs(true).max())
    for what, values, scale in (("coefficients", true, largest), ("ratings", ratings, 1.0)):
        if np.ptp(values) <= _LEAST_SPREAD * scale:
            reason = f"all {len(values)} {what} are equal: a correlation is undefined"
            return Correlation(reason=reason)
    moments = _moments(true, ratings)
    r = float(_pearson(moments.sum(axis=0)).clip(-1, 1))
    names = list(dict.fromkeys(contexts))
    place = {name: i for i, name in enumerate(names)}
    of_context = np.zeros((len(names), moments.shape[1]))
    np.add.at(of_context, [place[name] for name in contexts], moments)
    without = _pearson(of_context.sum(axis=0) - of_context)
    return Correlation(r, _interval(r, without, [sort for sort, _ in names], confidence))


def _interval(
    r: float, without: Float[np.ndarray, " n_contexts"], sorts: Sequence[str], confidence: float
) -> tuple[float, float] | None:
    """Ends of the jackknife's interval from r `without` each of the contexts."""
    z, *z_without = np.arctanh(np.clip([r, *without], -_MOST, _MOST))
    by_sort = [
        np.array([one for one, sort in zip(z_without, sorts, strict=True) if sort == s])
        for s in dict.fromkeys(sorts)
    ]
    variance = sum((len(of) - 1) * float(of.var()) for of in by_sort)
    degrees = min(map(len, by_sort)) - 1
    # NaN where without a context nothing varies.
    if not degrees or not variance > 0:
        return None
    half = float(student.ppf((1 + confidence) / 2, degrees)) * np.sqrt(variance)
    return float(np.tanh(z - half)), float(np.tanh(z + half))


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
