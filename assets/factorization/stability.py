"""How well the features of a fit are found again from other seeds on the same tokens.

Each other seed gives a fit of the same settings; its features are matched one to one with those of
the fit (Hungarian on cosine), and a feature's stability is its matched cosine, as mean and minimum
over the seeds. 1: every seed finds it. The choice of a rank, which asks more (another half of the
documents), is in rank_choice.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from assets.factorization.comparison_tables import FEATURE_STABILITY
from assets.factorization.config import FitConfig
from assets.factorization.inputs import as_matrix
from assets.factorization.metrics import match_features
from assets.factorization.snmf_method import snmf_estimator


@dataclass(frozen=True)
class FeatureStability:
    """Matched cosine of each feature with the fit of each other seed, in dictionary order."""

    cosines: Float[np.ndarray, "n_seeds k"]

    @property
    def mean(self) -> float | None:
        """Mean over features and seeds; None without seeds."""
        return float(self.cosines.mean()) if self.cosines.size else None

    def frame(self, feature_ids: Sequence[int]) -> pl.DataFrame:
        """Rows of `feature_stability`; none without seeds."""
        schema = FEATURE_STABILITY.empty().drop(FEATURE_STABILITY.partition_by).schema
        if not self.cosines.size:
            return pl.DataFrame(schema=schema)
        return pl.DataFrame(
            {
                "feature_id": list(feature_ids),
                "n_seeds": [len(self.cosines)] * len(feature_ids),
                "mean_cosine": self.cosines.mean(axis=0),
                "min_cosine": self.cosines.min(axis=0),
            },
            schema_overrides=schema,
        )


def seed_stability(
    activations: Float[Tensor, "n_tokens d"],
    fit: FitConfig,
    dictionary: Float[Tensor, "k d"],
    *,
    is_massive: Bool[Tensor, " n_tokens"] | None = None,
) -> FeatureStability:
    """Fit with the `stability_seeds` seeds after the fit's own, and match with its dictionary.

    Massive tokens are left out, as in the fit. Raises FactorizationError where no fit can be made.
    """
    k = len(dictionary)
    cosines = np.zeros((fit.stability_seeds, k))
    if fit.stability_seeds:
        matrix = as_matrix(activations)
        if is_massive is not None:
            matrix = matrix[~is_massive.to(matrix.device).bool()]
        for i in range(fit.stability_seeds):
            other = snmf_estimator(fit, k, fit.seed + 1 + i).fit(matrix)
            match = match_features(dictionary, torch.as_tensor(other.components_))
            cosines[i, match.own] = match.cosine
    return FeatureStability(cosines)
