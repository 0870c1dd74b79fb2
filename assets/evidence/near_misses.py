"""Near misses of a feature: documents where a similar feature fires strongly and it does not.

Strongly: above half of the similar feature's largest coefficient. A near miss shown as contrast
tells the labeller what the label must leave out; one kept back is a hard negative, which a label
that is too wide calls a hit (Paulo et al., arXiv 2410.13928, call both contrastive). The documents
are walked from the similar features' strongest down and go to two halves as firing documents do
(document_draws.py), the strongest to the hard negatives.

Which features are similar is similar_features.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from assets.evidence.document_draws import DocumentDraws
from assets.evidence.repeated_windows import TwoSides

STRONG_SHARE = 0.5


@dataclass(frozen=True)
class DocumentPeaks:
    """A feature's strongest token in each document where it fires, strongest document first.

    `shares` are its coefficients there as shares of its largest, in (0, 1].
    """

    documents: Int[np.ndarray, " n"]
    tokens: Int[np.ndarray, " n"]
    shares: Float[np.ndarray, " n"]


@dataclass(frozen=True)
class NearMisses:
    """Token indices of near misses and the similar feature that peaks there, strongest first."""

    tokens: Int[np.ndarray, " m"]
    similar: Int[np.ndarray, " m"]

    def at(self, places: Int[np.ndarray, " p"]) -> NearMisses:
        return NearMisses(self.tokens[places], self.similar[places])


def near_misses(
    similar: Sequence[int],
    peaks: Mapping[int, DocumentPeaks],
    is_free: Bool[np.ndarray, " n_documents"],
    draws: DocumentDraws,
    sides: TwoSides,
    feature_id: int,
    *,
    n_shown: int,
    n_kept: int,
) -> tuple[NearMisses, NearMisses]:
    """(shown, kept back): at most `n_shown` and `n_kept` of the free documents, none in both.

    `is_free` says in which documents the feature does not fire and that are not drawn otherwise;
    `sides` has what was drawn before, and takes no window that repeats it.
    A document where several of `similar` fire goes to the one that fires there most strongly.
    """
    found = [(other, peaks[other]) for other in similar if other in peaks]
    empty = np.zeros(0, dtype=np.int64)
    documents = np.concatenate([empty, *(p.documents for _, p in found)])
    tokens = np.concatenate([empty, *(p.tokens for _, p in found)])
    shares = np.concatenate([empty.astype(np.float32), *(p.shares for _, p in found)])
    of = np.concatenate([empty, *(np.full(len(p.documents), other) for other, p in found)])
    is_usable = is_free[documents] & (shares > STRONG_SHARE)
    order = np.flatnonzero(is_usable)
    order = order[np.lexsort((of[order], documents[order], -shares[order]))]
    _, first = np.unique(documents[order], return_index=True)
    order = order[np.sort(first)]
    is_kept = draws.are_shown(documents[order], feature_id)
    if not n_shown or not n_kept:
        is_kept = np.full(len(order), n_kept > 0)
    misses = NearMisses(tokens[order], of[order])
    shown, kept = np.flatnonzero(~is_kept), np.flatnonzero(is_kept)
    shown = shown[sides.show(misses.tokens[shown], n_shown)]
    kept = kept[sides.keep(misses.tokens[kept], n_kept)]
    return misses.at(shown), misses.at(kept)
