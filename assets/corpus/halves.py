"""The two halves of a labelled corpus: one to fit and choose on, the other to measure on.

Whatever looks at concepts (a supervised fit, the choice of a feature's concept) sees the first half
only, so that what is measured on the second is not its own training.

The documents of a concept stand in hash order (shared/hash_order.py), and the first half of them is
the first half: exactly balanced, and a document that comes or goes moves at most one other, of its
own concept, to the other half.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from assets.shared.hash_order import text_hashes


def split_in_halves(
    document_ids: Sequence[str], concepts: Sequence[str | None], seed: int
) -> Bool[np.ndarray, " n_documents"]:
    """True for the documents to choose on: half of each concept's (rounded down), drawn by seed.

    Whatever the order of the documents, the same ones are drawn. Raises ValueError where there are
    not as many ids as concepts.
    """
    if len(document_ids) != len(concepts):
        raise ValueError(f"{len(document_ids)} document ids with {len(concepts)} concepts")
    by_concept: dict[str | None, list[int]] = {}
    for index, concept in enumerate(concepts):
        by_concept.setdefault(concept, []).append(index)
    hashes = text_hashes(document_ids, seed, "half")
    to_choose = np.zeros(len(concepts), dtype=bool)
    for indices in by_concept.values():
        order = np.argsort(hashes[indices], kind="stable")[: len(indices) // 2]
        to_choose[np.array(indices)[order]] = True
    return to_choose
