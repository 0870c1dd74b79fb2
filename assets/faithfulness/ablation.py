"""A feature taken out of the running model: a ← a − y_j z_j wherever it is active.

Everything else of the activations stays, what the dictionary does not explain with it. Only
documents in which the feature is active are run, and only from the site's block on; by causality
nothing changes before its first active token, so the losses counted are those of predictions made
there and after. Of each feature, the documents with its largest coefficients are run, so a mean
effect is that where the feature is strong, not over the corpus.

The sums made here become rows in feature_rows.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_matrix
from torch import Tensor

from assets.faithfulness.replaced_forward import DocumentBatch
from assets.faithfulness.sample import SampledDocument


@dataclass(frozen=True)
class Ablation:
    """One feature taken out of one document: sums over the predictions it can change, in nats.

    `feature` is a dictionary row. `n_active` predictions are made at tokens where the feature is
    active, `n_elsewhere` at later ones where it is not. `zero_delta` is what zeroing the whole
    site adds to the cross-entropy of the document.
    """

    feature: int
    document: int
    n_active: int
    n_elsewhere: int
    delta_active: float
    delta_elsewhere: float
    kl: float
    zero_delta: float


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


def ablate(
    batch: DocumentBatch,
    document_indices: Sequence[int],
    sample: Sequence[SampledDocument],
    coefficients: Sequence[csr_matrix],
    dictionary: Float[Tensor, "k d"],
    plan: Mapping[int, Sequence[int]],
    zero_cross_entropy: Float[Tensor, "batch longest"],
    batch_tokens: int,
) -> Iterator[list[Ablation]]:
    """The planned ablations in the batch's documents, a list for each forward pass.

    `document_indices` say which documents of `sample` the batch holds, in its order; a pass runs
    at most `batch_tokens` positions (one document at least).
    """
    longest = batch.rows.shape[1]
    pairs = [
        (place, feature)
        for place, document in enumerate(document_indices)
        for feature in plan.get(document, ())
    ]
    zero_delta = (zero_cross_entropy - batch.base.cross_entropy).sum(dim=1)
    n_rows = max(1, batch_tokens // longest)
    for start in range(0, len(pairs), n_rows):
        chunk = pairs[start : start + n_rows]
        which = [place for place, _ in chunk]
        strengths = torch.zeros(len(chunk), longest)
        for row, (place, feature) in enumerate(chunk):
            document = document_indices[place]
            first = sample[document].document.n_special_prefix
            own = coefficients[document][:, [feature]].toarray()[:, 0]
            strengths[row, first : first + len(own)] = torch.from_numpy(own)
        directions = dictionary[[feature for _, feature in chunk]].to(batch.rows.device)
        taken = strengths.to(directions)[:, :, None] * directions[:, None, :]
        losses = batch.losses(which, (batch.rows[which].float() - taken).to(batch.rows.dtype))
        delta = losses.cross_entropy - batch.base.cross_entropy[which]
        done = []
        for row, (place, feature) in enumerate(chunk):
            is_active = (strengths[row] > 0) & batch.is_predicted[place]
            is_after = is_active.cumsum(0).bool() & batch.is_predicted[place]
            is_elsewhere = is_after & ~is_active
            done.append(
                Ablation(
                    feature=feature,
                    document=document_indices[place],
                    n_active=int(is_active.sum()),
                    n_elsewhere=int(is_elsewhere.sum()),
                    delta_active=float(delta[row, is_active].sum()),
                    delta_elsewhere=float(delta[row, is_elsewhere].sum()),
                    kl=float(losses.kl[row, is_after].sum()),
                    zero_delta=float(zero_delta[place]),
                )
            )
        yield done
