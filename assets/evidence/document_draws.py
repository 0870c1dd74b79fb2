"""Which documents are shown, kept back and drawn for a feature, stable under new documents.

Every draw is in hash order (shared/hash_order.py): it depends on the seed, the feature's and the
document's id, and on which other documents stand near, never on how many there are.

Halves. Near-duplicates, which have one min-hash (shared/word_runs.py), are a family, and go to one
half where the strongest of them stands. Walking the firing families from the strongest down, the
strongest is shown and the next is held out. Of the rest, the hash says of each whether it takes the
half that is opposite to the family just before it (so that both halves get documents of all
strengths), or a half of its own, shown or held out (so that the walk does not remember: a new
document moves only those right after it, one on average, and none before it). Content-defined
chunking does this for the blocks of files.

Draws over strengths. The span from the threshold of firing to the feature's largest coefficient is
cut into as many equal bands as documents are wanted. Of each band with documents one is drawn, and
what is still wanted out of all the others. Bands are of strength, not of rank, for a new document
moves every quantile but only its own band.

A draw is an order: who wants n documents takes the first n that will do.

What the kinds of contexts are is contexts.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from assets.shared.hash_order import mixed, text_hashes


class DocumentDraws:
    """The draws of every feature over the documents with these ids and min-hashes.

    Documents are given by number; those that stand in order are strongest first.
    """

    def __init__(self, document_ids: Sequence[str], minhashes: Sequence[str], seed: int) -> None:
        self._halves = text_hashes(minhashes, seed, "half")
        self._strengths, self._silent = (
            text_hashes(document_ids, seed, purpose) for purpose in ("strength", "silent")
        )

    def are_shown(
        self, documents: Int[np.ndarray, " n"], feature_id: int
    ) -> Bool[np.ndarray, " n"]:
        """Of each firing document, strongest first, whether it is shown (True) or held out."""
        _, first, family = np.unique(
            self._halves[documents], return_index=True, return_inverse=True
        )
        by_strength = np.argsort(first, kind="stable")
        hashes = mixed(self._halves[documents[first[by_strength]]], feature_id)
        place = np.arange(len(hashes))
        is_own = (hashes & np.uint64(2)) > 0
        is_shown = (hashes & np.uint64(1)) > 0
        is_own[:2], is_shown[:1], is_shown[1:2] = True, True, False
        nearest_own = np.maximum.accumulate(np.where(is_own, place, 0))
        is_shown = is_shown[nearest_own] ^ ((place - nearest_own) % 2 == 1)
        of_family = np.empty(len(hashes), dtype=bool)
        of_family[by_strength] = is_shown
        return of_family[family]

    def over_strengths(
        self,
        documents: Int[np.ndarray, " n"],
        shares: Float[np.ndarray, " n"],
        lowest_share: float,
        count: int,
        feature_id: int,
    ) -> Int[np.ndarray, " n"]:
        """Places of all documents in the order in which `count` are drawn over their strengths.

        `shares` are the strengths as shares of the feature's largest, in (lowest_share, 1].
        """
        order = np.argsort(mixed(self._strengths[documents], feature_id), kind="stable")
        heights = (shares[order].astype(np.float64) - lowest_share) / (1 - lowest_share)
        bands = np.clip((heights * count).astype(np.int64), 0, max(count - 1, 0))
        is_first = np.zeros(len(order), dtype=bool)
        is_first[np.unique(bands, return_index=True)[1]] = True
        return np.concatenate([order[is_first], order[~is_first]])

    def silent(self, documents: Int[np.ndarray, " n"], feature_id: int) -> Int[np.ndarray, " n"]:
        """The documents in the order in which they are drawn."""
        return documents[np.argsort(self._of_feature(documents, feature_id), kind="stable")]

    def token(self, document: int, positions: Int[np.ndarray, " n_tokens"], feature_id: int) -> int:
        """Place of the drawn one of a document's tokens, given by their positions in it."""
        return int(mixed(self._of_feature(document, feature_id), positions).argmin())

    def _of_feature(
        self, documents: Int[np.ndarray, " *n"] | int, feature_id: int
    ) -> UInt64[np.ndarray, " *n"]:
        return mixed(self._silent[documents], feature_id)
