"""Does a feature score its concept's texts above the others: a one-sided p-value a feature.

Mann and Whitney's test (1947) of the same two groups of scores that AUROC compares. Null: which
texts are of the concept has nothing to do with the scores, so every choice of n_positive texts out
of all is as likely. The p-value is the share of choices whose AUROC is at least the one found:

- without ties: exact where a group has 8 texts or fewer, else the normal limit;
- with ties: exact (`exact_p`) as long as that costs little;
- with ties and many texts: the normal limit corrected for ties where it holds, that is where of the
  smaller group 20 texts or more are expected outside the largest tie; else the share of 9,999
  choices drawn by seed, the one found among them (Phipson and Smyth 2010), so 0.0001 at least.

A normal limit for few texts outside the largest tie (most features are silent in most texts) is
wrong by orders of magnitude: 5 of 100 texts positive and one of these alone above 0 is p = 0.05
exactly, and 8e-6 by the limit.

p can't go below 1 / C(n_positive + n_negative, n_positive): 0.004 for 5 and 5 sentences, 0.1 for 2
and 3. What it says is that the feature tells *these two kinds of text* apart: an LLM's sentences
differ from the bundled neutral ones in style, and a random direction mostly has something to do
with any such difference, so the null is false for most directions. It is why the columns are called
p_value_texts and q_value_texts (by shared/false_discovery.py, over the features of a fit); whether
a feature is better than directions without meaning is comparison/feature_significance.py's.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import hypergeom, mannwhitneyu, rankdata

# Additions that the exact distribution of tied scores may take, a few hundredths of a second.
MOST_ADDITIONS = 20_000_000
# Texts of the smaller group expected outside the largest tie from which the normal limit is taken.
FEWEST_FOR_NORMAL = 20
N_DRAWN = 9_999


def one_sided_p(
    positive: Float[np.ndarray, " n_positive"],
    negative: Float[np.ndarray, " n_negative"],
    seed: int = 0,
) -> float | None:
    """P(AUROC at least as high by chance); None where a group is empty. Scores must be finite."""
    if not len(positive) or not len(negative):
        return None
    scores = np.concatenate([positive, negative])
    values, counts = np.unique(scores, return_counts=True)
    if len(values) == len(scores):
        return float(mannwhitneyu(positive, negative, alternative="greater").pvalue)
    ranks, n_chosen = _ranks_of_smaller_group(scores, len(positive))
    n_untied = len(scores) - int(counts.max())
    if _additions(ranks, n_chosen, n_untied) <= MOST_ADDITIONS:
        return exact_p(ranks, n_chosen)
    if n_chosen * n_untied >= FEWEST_FOR_NORMAL * len(scores):
        return float(
            mannwhitneyu(positive, negative, alternative="greater", method="asymptotic").pvalue
        )
    return drawn_p(ranks, n_chosen, seed)


def exact_p(ranks: Int[np.ndarray, " n_texts"], n_chosen: int) -> float:
    """Share of choices of `n_chosen` ranks with a sum at least that of the first `n_chosen`.

    The texts of the largest tie are alike, so the j chosen outside of it are hypergeometric, and
    only their sums are counted one by one: counts[j, s] is the number of choices of j ranks with
    sum s, text after text (dynamic programming). Ranks are whole and above zero.
    """
    found = int(ranks[:n_chosen].sum())
    values, counts = np.unique(ranks, return_counts=True)
    tied_rank, n_tied = int(values[counts.argmax()]), int(counts.max())
    others = ranks[ranks != tied_rank]
    most = min(n_chosen, len(others))
    sums = np.zeros((most + 1, _largest_sum(others, most) + 1))
    sums[0, 0] = 1.0
    for rank in others.tolist():
        sums[1:, rank:] += sums[:-1, :-rank]
    p = 0.0
    for j in range(max(0, n_chosen - n_tied), most + 1):
        needed = max(0, found - (n_chosen - j) * tied_rank)
        share = sums[j, needed:].sum() / sums[j].sum()
        p += share * hypergeom.pmf(j, len(ranks), len(others), n_chosen)
    return min(float(p), 1.0)


def drawn_p(ranks: Int[np.ndarray, " n_texts"], n_chosen: int, seed: int) -> float:
    """The same share among N_DRAWN choices drawn by seed and the one found."""
    sums = ranks[_choices(len(ranks), n_chosen, seed)].sum(axis=1)
    return (1 + int((sums >= ranks[:n_chosen].sum()).sum())) / (1 + N_DRAWN)


def _ranks_of_smaller_group(
    scores: Float[np.ndarray, " n_texts"], n_positive: int
) -> tuple[Int[np.ndarray, " n_texts"], int]:
    """Doubled midranks (whole numbers), the smaller group's first, and how many those are.

    Positives that rank high are negatives that rank low, so where the negatives are fewer, they
    are ranked from the other end.
    """
    n_negative = len(scores) - n_positive
    if n_negative < n_positive:
        scores, n_positive = -np.roll(scores, n_negative), n_negative
    return np.rint(2 * rankdata(scores)).astype(np.int64), n_positive


def _additions(ranks: Int[np.ndarray, " n_texts"], n_chosen: int, n_untied: int) -> int:
    most = min(n_chosen, n_untied)
    return n_untied * most * _largest_sum(ranks, most)


def _largest_sum(ranks: Int[np.ndarray, " n"], n_chosen: int) -> int:
    return int(np.sort(ranks)[len(ranks) - n_chosen :].sum())


@lru_cache(maxsize=4)
def _choices(n_texts: int, n_chosen: int, seed: int) -> Int[np.ndarray, "n_drawn n_chosen"]:
    generator = np.random.default_rng(seed)
    return np.stack([generator.permutation(n_texts)[:n_chosen] for _ in range(N_DRAWN)])
