"""Does a score tell positives from negatives: AUROC with interval and p-value, S_CD, Cohen's d.

    AUROC  = P(positive > negative) + ½ P(equal), from midranks (Mann and Whitney 1947)
    S_CD   = ln(mean positive / mean negative)  (the semi-NMF MLP-features paper), defined only
             where both means are above 0
    d      = (mean positive − mean negative) / pooled standard deviation (Cohen 1988)

Intervals take texts as independent draws, and hold at a handful of them: of the AUROC Newcombe's
score-type one, of S_CD Fieller's of the ratio (assets/shared/small_sample_intervals.py). They say
nothing about texts of another kind. The p-value is significance.py's. Which texts are compared is
decided elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from assets.detection.significance import one_sided_p
from assets.shared.small_sample_intervals import auroc_interval, log_ratio_interval, mean_of


@dataclass(frozen=True)
class ConceptStatistics:
    """How well scores separate two groups; None with a word in `reasons` where undefined."""

    n_positive: int
    n_negative: int
    mean_positive: float | None
    mean_negative: float | None
    s_cd: float | None
    s_cd_low: float | None
    s_cd_high: float | None
    auroc: float | None
    auroc_low: float | None
    auroc_high: float | None
    p_value: float | None
    cohens_d: float | None
    reasons: tuple[str, ...]


def auroc_matrix(
    scores: Float[np.ndarray, "n_texts k"], is_positive: Bool[np.ndarray, "n_texts c"]
) -> Float[np.ndarray, "k c"]:
    """AUROC of every score column for every grouping, by one ranking of each column.

    NaN for a grouping without positives or without negatives. Scores must be finite.
    """
    if not np.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinity; leave those texts or features out")
    ranks = rankdata(scores, axis=0)
    n_positive = is_positive.sum(axis=0)
    n_negative = len(scores) - n_positive
    rank_sums = ranks.T @ is_positive.astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (rank_sums - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def concept_statistics(
    positive: Float[np.ndarray, " n_positive"],
    negative: Float[np.ndarray, " n_negative"],
    *,
    confidence: float,
    seed: int,
) -> ConceptStatistics:
    """Every statistic of two groups of finite scores; what is undefined is None, with a reason.

    An end of s_cd's interval is None, without a reason, where it is not bounded.
    """
    n_positive, n_negative = len(positive), len(negative)
    mean_positive = float(positive.mean()) if n_positive else None
    mean_negative = float(negative.mean()) if n_negative else None
    reasons: list[str] = []
    auroc = low = high = None
    if n_positive and n_negative:
        is_positive = np.arange(n_positive + n_negative) < n_positive
        scores = np.concatenate([positive, negative])
        auroc = float(auroc_matrix(scores[:, None], is_positive[:, None])[0, 0])
        low, high = auroc_interval(auroc, n_positive, n_negative, confidence)
    else:
        reasons.append(f"auroc needs both groups; found {n_positive} and {n_negative} texts")
    s_cd = _log_ratio(mean_positive, mean_negative)
    if s_cd is None and mean_positive is not None and mean_negative is not None:
        reasons.append(
            f"s_cd needs means above 0; found {mean_positive:.4g} (positive) and "
            f"{mean_negative:.4g} (negative)"
        )
    s_cd_low = s_cd_high = None
    if s_cd is not None:
        means = mean_of(positive), mean_of(negative)
        s_cd_low, s_cd_high = log_ratio_interval(*means, confidence)
    return ConceptStatistics(
        n_positive=n_positive,
        n_negative=n_negative,
        mean_positive=mean_positive,
        mean_negative=mean_negative,
        s_cd=s_cd,
        s_cd_low=s_cd_low,
        s_cd_high=s_cd_high,
        auroc=auroc,
        auroc_low=low,
        auroc_high=high,
        p_value=one_sided_p(positive, negative, seed),
        cohens_d=_cohens_d(positive, negative),
        reasons=tuple(reasons),
    )


def _log_ratio(numerator: float | None, denominator: float | None) -> float | None:
    if numerator is None or denominator is None or numerator <= 0 or denominator <= 0:
        return None
    return math.log(numerator / denominator)


def _cohens_d(positive: np.ndarray, negative: np.ndarray) -> float | None:
    n_positive, n_negative = len(positive), len(negative)
    if n_positive < 2 or n_negative < 2:
        return None
    squares = positive.var(ddof=1) * (n_positive - 1) + negative.var(ddof=1) * (n_negative - 1)
    deviation = math.sqrt(squares / (n_positive + n_negative - 2))
    return float((positive.mean() - negative.mean()) / deviation) if deviation > 0 else None
