"""The two halves of a labelled corpus: one to fit and choose on, the other to measure on.

Whatever looks at concepts (a supervised fit, the choice of a feature's concept) sees the first half
only, so that what is measured on the second is not its own training.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int


def split_in_halves(concepts: Sequence[str | None], seed: int) -> Bool[np.ndarray, " n_documents"]:
    """True for the documents to choose on: half of each concept's, drawn by seed."""
    generator = np.random.default_rng(seed)
    by_concept: dict[str | None, list[int]] = {}
    for index, concept in enumerate(concepts):
        by_concept.setdefault(concept, []).append(index)
    to_choose = np.zeros(len(concepts), dtype=bool)
    for concept in sorted(by_concept, key=lambda name: (name is None, name or "")):
        indices: Int[np.ndarray, " n"] = generator.permutation(by_concept[concept])
        to_choose[indices[: len(indices) // 2]] = True
    return to_choose
