"""Do people and the judge agree? Spearman's rank correlation over items, with its interval.

An item's human rating is the mean over its raters (and over sheets, where somebody rated it twice).
Spearman's ρ over items is Pearson's correlation of midranks. Its interval is a percentile bootstrap
over features: the items of one feature share its label and direction and are rated alike, so
features are drawn, each with all its items (the cluster bootstrap; Davison and Hinkley 1997, sec.
3.8). With one item a feature it is the bootstrap over items; items drawn one by one would claim
more certainty than there is. Below 5 features there are fewer than 40 different draws, too few for
tails of 2.5 %: then there is no interval.

Ratings have three values, so ties are many and ρ stays below 1 even for people who agree: two
raters' ρ beside the judge's says what can be had.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from scipy.stats import rankdata

from assets.ratings.tables import RATING_AGREEMENT

MEAN_OF_RATERS = "mean of raters"
FEWEST_ITEMS = 3
FEWEST_FEATURES = 5
_FEATURE = ["site", "fit", "feature_id"]


def rating_agreement(
    ratings: pl.DataFrame, keys: pl.DataFrame, *, n_bootstrap: int, confidence: float, seed: int
) -> pl.DataFrame:
    """Rows of `rating_agreement` without `study`.

    `ratings` has item, site, fit, feature_id, question, rater and rating; `keys` has item,
    question, judge and judge_rating.
    """
    by_rater = ratings.group_by("item", *_FEATURE, "question", "rater").agg(pl.col("rating").mean())
    human = by_rater.group_by("item", *_FEATURE, "question").agg(
        pl.col("rating").mean(), raters=pl.col("rater")
    )
    judges = keys.select("item", "question", "judge", "judge_rating").drop_nulls()
    judged = human.join(judges, on=["item", "question"])
    options = {"n_bootstrap": n_bootstrap, "confidence": confidence, "seed": seed}
    rows: list[dict[str, Any]] = []
    for (question, judge), both in judged.sort("item").group_by("question", "judge"):
        row = {"question": question, "compared": "judge", "first": MEAN_OF_RATERS}
        row |= {"second": judge, "n_raters": both["raters"].explode().n_unique()}
        rows.append(row | _compared(both, "judge_rating", **options))
    for (question,), of_question in by_rater.group_by("question"):
        for one, other in combinations(sorted(set(of_question["rater"])), 2):
            both = (
                of_question.filter(rater=one)
                .join(of_question.filter(rater=other), on="item", suffix="_other")
                .sort("item")
            )
            row = {"question": question, "compared": "raters", "first": one, "second": other}
            rows.append(row | {"n_raters": 2} | _compared(both, "rating_other", **options))
    schema = RATING_AGREEMENT.empty().drop(RATING_AGREEMENT.partition_by).schema
    return pl.DataFrame(rows, schema=schema).sort("question", "compared", "first", "second")


def spearman(
    x: Float[np.ndarray, "*batch n"], y: Float[np.ndarray, "*batch n"]
) -> Float[np.ndarray, "*batch"]:
    """Correlation of midranks along the last axis; NaN where either side is all equal."""
    a, b = (rankdata(values, axis=-1) for values in (x, y))
    a, b = (ranks - ranks.mean(axis=-1, keepdims=True) for ranks in (a, b))
    scale = np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(scale > 0, (a * b).sum(axis=-1) / scale, np.nan)


def cluster_draws(
    clusters: Int[np.ndarray, " n"], n_draws: int, seed: int
) -> Iterator[Int[np.ndarray, " drawn"]]:
    """Positions of the items of each bootstrap draw: as many clusters as there are, with repeats.

    `clusters` numbers each item's cluster, 0 to k - 1. With one item a cluster, in order, these are
    the draws of a bootstrap over items.
    """
    members = [np.flatnonzero(clusters == number) for number in range(int(clusters.max()) + 1)]
    drawn = np.random.default_rng(seed).integers(len(members), size=(n_draws, len(members)))
    for numbers in drawn:
        yield np.concatenate([members[number] for number in numbers])


def _compared(
    both: pl.DataFrame, second: str, *, n_bootstrap: int, confidence: float, seed: int
) -> dict[str, Any]:
    """The correlation of `rating` with the column `second` over the rows, one an item."""
    x, y = both["rating"].to_numpy(), both[second].to_numpy()
    features = both.select(_FEATURE).unique(maintain_order=True).with_row_index("cluster")
    row: dict[str, Any] = {"n_items": len(x), "n_features": len(features), "status": "undefined"}
    if len(x):
        row |= {"mean_first": float(x.mean()), "mean_second": float(y.mean())}
    if len(x) < FEWEST_ITEMS:
        return row | {"reason": f"{len(x)} items rated by both; expected {FEWEST_ITEMS} at least"}
    found = float(spearman(x, y))
    if np.isnan(found):
        side = "first" if len(set(x)) == 1 else "second"
        return row | {"reason": f"all ratings of {side} are equal, so there are no ranks"}
    row |= {"spearman": found, "status": "ok"}
    if len(features) < FEWEST_FEATURES:
        why = f"no interval: items of {len(features)} features; expected {FEWEST_FEATURES} at least"
        return row | {"reason": why}
    clusters = both.join(features, on=_FEATURE, maintain_order="left")["cluster"]
    # Draws of one length are ranked together.
    by_length: dict[int, list[Int[np.ndarray, " drawn"]]] = {}
    for drawn in cluster_draws(clusters.to_numpy(), n_bootstrap, seed):
        by_length.setdefault(len(drawn), []).append(drawn)
    stacks = [np.stack(draws) for draws in by_length.values()]
    resampled = np.concatenate([np.zeros(0), *(spearman(x[drawn], y[drawn]) for drawn in stacks)])
    resampled = resampled[~np.isnan(resampled)]
    if len(resampled):
        tail = (1 - confidence) / 2
        low, high = np.quantile(resampled, [tail, 1 - tail])
        row |= {"spearman_low": float(low), "spearman_high": float(high)}
    return row
