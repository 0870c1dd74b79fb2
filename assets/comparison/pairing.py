"""Which feature of one fit stands against which of another, so that fits can be tested in pairs.

Features of two dictionaries have nothing in common but the corpus, so there are two ways:

- concept: each feature has the corpus concept that it detects best, chosen on one half of the
  documents (detection/corpus_concepts.py). For each concept that both fits have a feature for, the
  strongest feature of each (largest share of energy) makes the pair. Hard concepts are hard for
  both, so pairing takes their spread out.
- strength_rank: the k-th strongest feature of one with the k-th strongest of the other, where fewer
  concepts are shared than a test needs. That pairs equal standing, not equal meaning: it takes out
  how strength goes with the score, and no more.

Two pairings are within one fit. shuffled_label sets the score of each feature's own label against
that of another feature's label on the same contexts (label_scores.is_shuffled). permuted_null sets
a metric of each feature against that of its own null: the feature with its neurons permuted, at the
same tokens and of the same norm (ablation/plan.py). Fits of random features are no such null, since
they write far less where they are strong.

The feature of a pair is never chosen by the score that is compared: the best of many features would
win by its number (the winner's curse), and a fit with more features against one with fewer. Only
features with a value of the metric are taken, so read n_pairs and method_comparison.coverage.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float

from assets.comparison.fits import ComparedFit

Pairing = Literal["concept", "strength_rank", "shuffled_label", "permuted_null"]


class Pairs(NamedTuple):
    """Values of the two fits' features, pair by pair."""

    pairing: Pairing
    a: Float[np.ndarray, " n_pairs"]
    b: Float[np.ndarray, " n_pairs"]


def paired_values(a: ComparedFit, b: ComparedFit, metric: str, fewest: int) -> Pairs:
    """The pairs by concept, or by rank of strength where there are fewer than `fewest` of those."""
    of_concept = _joined(_strongest_of_concepts(a, metric), _strongest_of_concepts(b, metric))
    if len(of_concept) >= fewest:
        return _pairs("concept", of_concept)
    return _pairs("strength_rank", _joined(_by_rank(a, metric), _by_rank(b, metric)))


def own_and_shuffled(fit: ComparedFit, shuffled: pl.DataFrame) -> Pairs:
    """label_auroc of a feature's own label, and of the other feature's it was judged by too.

    `shuffled` has fit, feature_id and auroc, NULL where there is none.
    """
    others = shuffled.filter(pl.col("auroc").is_not_null(), fit=fit.key)
    own = fit.features.filter(pl.col("label_auroc").is_not_null())
    return _pairs(
        "shuffled_label",
        _joined(
            own.select(pl.col("feature_id").alias("place"), pl.col("label_auroc").alias("value")),
            others.select(pl.col("feature_id").alias("place"), pl.col("auroc").alias("value")),
        ),
    )


def own_and_null(fit: ComparedFit, metric: str, own_null: str) -> Pairs:
    """The metric of each feature, and the same of its own null, where both have a value."""
    return _pairs(
        "permuted_null",
        fit.features.select(
            pl.col("feature_id").alias("place"),
            pl.col(metric).alias("value"),
            pl.col(own_null).alias("value_b"),
        )
        .drop_nulls()
        .sort("place"),
    )


def _strongest_of_concepts(fit: ComparedFit, metric: str) -> pl.DataFrame:
    # Features come strongest first.
    return (
        fit.features.filter(pl.col("concept").is_not_null() & pl.col(metric).is_not_null())
        .unique("concept", keep="first", maintain_order=True)
        .select(pl.col("concept").alias("place"), pl.col(metric).alias("value"))
    )


def _by_rank(fit: ComparedFit, metric: str) -> pl.DataFrame:
    ranked = fit.features.with_row_index("place").filter(pl.col(metric).is_not_null())
    return ranked.select("place", pl.col(metric).alias("value"))


def _joined(a: pl.DataFrame, b: pl.DataFrame) -> pl.DataFrame:
    return a.join(b, on="place", how="inner", suffix="_b").sort("place")


def _pairs(pairing: Pairing, joined: pl.DataFrame) -> Pairs:
    return Pairs(pairing, joined["value"].to_numpy(), joined["value_b"].to_numpy())
