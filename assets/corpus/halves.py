"""The two halves of a labelled corpus: one to fit and choose on, the other to measure on.

Whatever looks at concepts (a supervised fit, the choice of a feature's concept) sees the first half
only, so that what is measured on the second is not its own training. Nor is a near-duplicate of it:
documents are halved by their min-hash (shared/word_runs.py), and those that have one min-hash, a
family, are never parted.

The families of a concept stand in hash order (shared/hash_order.py), and the first half of its
documents is the first half: balanced to half of the family in the middle, which for a corpus
without near-duplicates is exact. A document that comes or goes moves at most one family, of its own
concept. A bit of the hash would move none, but would part 23 documents of a concept as 7 and 16,
and leave a concept of 4 in one half. Only a family of several concepts, which no order of one
concept can keep together, goes where a bit of its hash says, and the rest of each concept makes up
for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from assets.shared.hash_order import text_hashes


def split_in_halves(
    minhashes: Sequence[str | None], concepts: Sequence[str | None], seed: int
) -> Bool[np.ndarray, " n_documents"]:
    """True for the documents to choose on: half of each concept's (rounded down), drawn by seed.

    `minhashes` are documents.minhash: equal ones are near-duplicates. Whatever the order of the
    documents, the same ones are drawn. Raises ValueError where there are not as many min-hashes as
    concepts, or where a document has none.
    """
    if len(minhashes) != len(concepts):
        raise ValueError(f"{len(minhashes)} min-hashes with {len(concepts)} concepts")
    if None in minhashes:
        raise ValueError(
            f"{sum(one is None for one in minhashes)} of {len(minhashes)} documents have no "
            "minhash, so they were written by an older version; materialize `documents` again"
        )
    if not len(concepts):
        return np.zeros(0, dtype=bool)
    names, family = np.unique(np.array(minhashes, dtype=str), return_inverse=True)
    hashes = text_hashes(names.tolist(), seed, "half")
    number: dict[str | None, int] = {}
    concept = np.array([number.setdefault(one, len(number)) for one in concepts])
    pairs, size = np.unique(np.stack([concept, family]), axis=1, return_counts=True)
    is_mixed = np.bincount(pairs[1], minlength=len(names)) > 1
    is_first = is_mixed & (hashes >> np.uint64(63) == 0)
    for one in range(len(number)):
        of_concept = pairs[0] == one
        families, sizes = pairs[1][of_concept], size[of_concept]
        wanted = sizes.sum() // 2 - sizes[is_first[families]].sum()
        own, sizes = families[~is_mixed[families]], sizes[~is_mixed[families]]
        order = np.argsort(hashes[own], kind="stable")
        # A family is drawn whose middle is still wanted; a single document always has one side.
        middle = np.cumsum(sizes[order]) - sizes[order] / 2
        is_first[own[order[middle <= wanted]]] = True
    return is_first[family]
