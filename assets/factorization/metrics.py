"""How good a factorization is: explained variance, sparsity, matching features, concept AUROC.

    explained_variance           1 - ‖A - R‖² / ‖A‖²
    explained_variance_centered  1 - ‖A - R‖² / ‖A - mean(A)‖²      with R = Y Z (+ offset)

Both may be negative: a comparator need not reconstruct. Reading scores off text (labels, detection
on probe sentences) belongs to later stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata
from torch import Tensor

# Tokens reconstructed at a time.
TOKEN_CHUNK = 512


@dataclass(frozen=True)
class ExplainedVariance:
    """Uncentred and centred explained variance; centred is None where all rows are equal."""

    uncentred: float | None
    centred: float | None


class ExplainedVarianceSum:
    """Explained variance added up over parts of the tokens."""

    def __init__(self, offset: Float[Tensor, " d"] | None = None) -> None:
        self._offset = offset
        self._sum: Tensor | None = None
        self._residual = self._energy = 0.0
        self._n_tokens = 0

    def add(
        self,
        activations: Float[Tensor, "n_tokens d"],
        coefficients: Float[Tensor, "n_tokens k"],
        dictionary: Float[Tensor, "k d"],
    ) -> None:
        for begin in range(0, activations.shape[0], TOKEN_CHUNK):
            rows = slice(begin, begin + TOKEN_CHUNK)
            part = activations[rows].to(dictionary.dtype)
            residual = torch.addmm(part, coefficients[rows], dictionary, alpha=-1)
            if self._offset is not None:
                residual -= self._offset
            self._residual += _squares(residual)
            self._energy += _squares(part)
            total = part.sum(dim=0, dtype=torch.float64)
            self._sum = total if self._sum is None else self._sum + total
        self._n_tokens += activations.shape[0]

    def result(self) -> ExplainedVariance:
        """None where a denominator is zero."""
        if self._sum is None or not self._energy:
            return ExplainedVariance(None, None)
        # ‖A - mean‖² = ‖A‖² - n ‖mean‖²; equal rows leave rounding errors only.
        spread = self._energy - _squares(self._sum) / self._n_tokens
        is_constant = spread <= 1e-6 * self._energy
        return ExplainedVariance(
            1 - self._residual / self._energy,
            None if is_constant else 1 - self._residual / spread,
        )


def _squares(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2


def explained_variance(
    activations: Float[Tensor, "n_tokens d"],
    coefficients: Float[Tensor, "n_tokens k"],
    dictionary: Float[Tensor, "k d"],
    offset: Float[Tensor, " d"] | None = None,
) -> ExplainedVariance:
    """Explained variance of A by Y Z (+ offset); None where the denominator is zero."""
    total = ExplainedVarianceSum(offset)
    total.add(activations, coefficients, dictionary)
    return total.result()


def l0(coefficients: Float[Tensor, "n_tokens k"]) -> float:
    """Mean number of coefficients above zero per token."""
    return float((coefficients > 0).sum()) / coefficients.shape[0]


@dataclass(frozen=True)
class FeatureMatch:
    """A one-to-one matching: `other[i]` is the row matched to row `own[i]`, with their cosine."""

    own: Int[np.ndarray, " m"]
    other: Int[np.ndarray, " m"]
    cosine: Float[np.ndarray, " m"]


def match_features(
    dictionary: Float[Tensor, "k d"],
    other: Float[Tensor, "l d"],
    *,
    ignore_sign: bool = False,
) -> FeatureMatch:
    """Match features one to one so that the sum of cosines (or |cosines|) is largest.

    min(k, l) pairs, by the Hungarian method (scipy); the cosine returned keeps its sign.
    """
    left = torch.nn.functional.normalize(dictionary.double().cpu(), dim=1)
    right = torch.nn.functional.normalize(other.double().cpu(), dim=1)
    cosine = (left @ right.t()).numpy()
    own, matched = linear_sum_assignment(np.abs(cosine) if ignore_sign else cosine, maximize=True)
    return FeatureMatch(own, matched, cosine[own, matched])


def best_auroc(
    coefficients: Float[Tensor, "n_tokens k"],
    document_index: Int[Tensor, " n_tokens"],
    document_concepts: Sequence[str | None],
) -> pl.DataFrame:
    """For each concept, the feature whose coefficients tell its documents from the others best.

    A document's score is its largest coefficient; AUROC by ranks, ties counted half. Columns:
    concept, feature_id, auroc, n_documents; a concept held by no or by all documents has no row.
    `document_index` gives each token's position in `document_concepts`.
    """
    n_documents, n_features = len(document_concepts), coefficients.shape[1]
    pooled = torch.zeros(n_documents, n_features, dtype=torch.float32)
    index = document_index.cpu().long()[:, None].expand(-1, n_features)
    pooled.scatter_reduce_(0, index, coefficients.float().cpu(), "amax")
    ranks = rankdata(pooled.numpy(), axis=0)
    concepts = np.array(["" if concept is None else concept for concept in document_concepts])
    is_labelled = np.array([concept is not None for concept in document_concepts], dtype=bool)
    rows = []
    for concept in sorted(set(concepts[is_labelled].tolist())):
        is_member = (concepts == concept) & is_labelled
        n_members = int(is_member.sum())
        if n_members == n_documents:
            continue
        wins = ranks[is_member].sum(axis=0) - n_members * (n_members + 1) / 2
        auroc = wins / (n_members * (n_documents - n_members))
        best = int(auroc.argmax())
        rows.append((concept, best, float(auroc[best]), n_members))
    return pl.DataFrame(
        rows,
        schema={
            "concept": pl.String,
            "feature_id": pl.Int32,
            "auroc": pl.Float64,
            "n_documents": pl.Int64,
        },
        orient="row",
    )
