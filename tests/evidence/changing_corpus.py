"""A synthetic corpus of 500 documents and 40 features, whole and with documents left out or edited.

Words carry meaning here: what is asked about a feature is made of them.
"""

from __future__ import annotations

import numpy as np
import polars as pl

N_DOCUMENTS, N_FEATURES, LENGTH = 500, 40, 12
IDS = [f"{i * 2654435761 % 2**32:08x}" for i in range(N_DOCUMENTS)]
"""Ids in no order that has to do with the corpus, like hashes of texts."""


def coefficients_of(documents: list[str]) -> np.ndarray:
    """[n_documents, LENGTH, N_FEATURES]: made from the ids alone; 15 % of documents fire."""
    blocks = []
    for document in documents:
        rng = np.random.default_rng(int(document, 16))
        block = 0.1 * rng.random((LENGTH, N_FEATURES)) * (rng.random((LENGTH, N_FEATURES)) < 0.2)
        fires = rng.random(N_FEATURES) < 0.15
        place = rng.integers(0, LENGTH, N_FEATURES)
        block[place[fires], np.flatnonzero(fires)] = rng.beta(1, 3, fires.sum()) + 0.2
        blocks.append(block)
    return np.array(blocks, dtype=np.float32)


def corpus(documents: list[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(coefficients, tokens) of the documents; rows are numbered in their order."""
    values = coefficients_of(documents).reshape(-1, N_FEATURES)
    rows, features = values.nonzero()
    coefficients = pl.DataFrame(
        {
            "row": rows.astype(np.int64),
            "feature_id": features.astype(np.int32),
            "coefficient": values[rows, features],
        }
    )
    tokens = pl.DataFrame(
        {
            "document_id": np.repeat(documents, LENGTH),
            "position": np.tile(np.arange(LENGTH, dtype=np.int32), len(documents)),
            "token": [f" {name}{i}" for name in documents for i in range(LENGTH)],
        }
    ).with_row_index("row")
    return coefficients, tokens.with_columns(pl.col("row").cast(pl.Int64))


def firing(document: str, share: float) -> set[int]:
    """The features that fire in a document above `share` of their largest in the whole corpus."""
    largest = coefficients_of(IDS).max(axis=(0, 1))
    peaks = coefficients_of([document])[0].max(axis=0)
    return set(np.flatnonzero(peaks > share * largest).tolist())
