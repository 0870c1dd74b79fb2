"""Which features use the same neurons: shared neurons, Jaccard index and cosine of each pair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from jaxtyping import Float
from scipy.sparse import csr_matrix, triu
from torch import Tensor

from assets.hierarchy.tables import NEURON_OVERLAP


def neuron_overlap_frame(
    dictionary: Float[Tensor, "k d"], feature_ids: Sequence[int] | None = None
) -> pl.DataFrame:
    """Rows of `neuron_overlap`: every pair of features with a neuron in common, smaller id first.

    Rows of zeros share nothing. `feature_ids`, ascending, name the rows (0 … k − 1 without it).
    Works on the non-zeros only.
    """
    rows = csr_matrix(dictionary.detach().double().cpu().numpy())
    support = rows.copy()
    support.data = np.ones_like(support.data)
    shared = triu(support @ support.T, k=1).tocoo()
    features, others = shared.row, shared.col
    n_shared = shared.data
    sizes = np.asarray(support.sum(axis=1)).ravel()
    norms = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    # Pairs whose products cancel are shared all the same, so the cosines are looked up by pair.
    products = np.asarray((rows @ rows.T).tocsr()[features, others]).ravel()
    ids = np.arange(dictionary.shape[0]) if feature_ids is None else np.asarray(feature_ids)
    frame = pl.DataFrame(
        {
            "feature_id": ids[features],
            "other_feature_id": ids[others],
            "n_shared": n_shared,
            "jaccard": n_shared / (sizes[features] + sizes[others] - n_shared),
            "cosine": products / (norms[features] * norms[others]),
        }
    )
    schema = NEURON_OVERLAP.empty().drop(NEURON_OVERLAP.partition_by).schema
    return frame.cast(schema).sort("feature_id", "other_feature_id")
