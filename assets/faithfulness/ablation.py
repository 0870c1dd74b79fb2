"""A feature taken out of the running model: a ← a − y_j z_j wherever it is active.

Everything else of the activations stays, what the dictionary does not explain with it. Only
documents in which the feature is active are run; by causality nothing changes before its first
active token, so the losses counted are those of predictions made there and after. Of each feature,
the documents with its largest coefficients are run, so a mean effect is that where the feature is
strong, not over the corpus.

Running them is runs.py; their sums become rows in feature_rows.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy.sparse import csr_matrix
from torch import Tensor

from assets.faithfulness.sample import SampledDocument

ABLATION = "ablation"
"""Stands beside REPLACEMENTS in `faithfulness_documents`."""


def peak_coefficients(
    sample: Sequence[SampledDocument], coefficients: Sequence[csr_matrix]
) -> Float[np.ndarray, "n_documents k"]:
    """The largest coefficient of each feature in each document, among rows with a next token."""
    peaks = [
        own[: one.document.n_rows - 1].max(axis=0).toarray()[0]
        for one, own in zip(sample, coefficients, strict=True)
    ]
    return np.stack(peaks)


def plan_ablations(
    peaks: Float[np.ndarray, "n_documents k"], features: Sequence[int], n_documents: int
) -> dict[int, list[int]]:
    """Document index to the dictionary rows ablated in it.

    Each feature gets the (at most) `n_documents` documents with its largest peaks above zero;
    equal peaks go to the earlier document.
    """
    plan: dict[int, list[int]] = {}
    for feature in features:
        order = np.argsort(-peaks[:, feature], kind="stable")[:n_documents]
        for document in order.tolist():
            if peaks[document, feature] > 0:
                plan.setdefault(document, []).append(feature)
    return plan


def rows_without(
    own: Float[Tensor, "n_rows d"],
    strengths: Float[Tensor, " n_rows"],
    direction: Float[Tensor, " d"],
) -> Float[Tensor, "n_rows d"]:
    """A document's rows less what the feature puts in; `strengths` are its coefficients there."""
    taken = strengths.to(own.device)[:, None] * direction.to(own.device)[None, :]
    return (own.float() - taken).to(own.dtype)


def changeable(
    strengths: Float[Tensor, " n_rows"], is_predicted: Bool[Tensor, " n_rows"]
) -> tuple[Bool[Tensor, " n_rows"], Bool[Tensor, " n_rows"]]:
    """Predictions made where the feature is active, and all from the first of these on."""
    is_active = (strengths > 0) & is_predicted
    return is_active, is_active.cumsum(0).bool() & is_predicted
