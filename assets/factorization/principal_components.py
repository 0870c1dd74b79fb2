"""PCA in the common form: each component makes a positive and a negative feature.

    A ≈ offset + max(0, B) V + max(0, -B) (-V)   with B = (A - offset) Vᵀ

where offset is the mean activation, so that coefficients are >= 0; rank k means k / 2 components.
Feature 2i is component i, feature 2i + 1 its negative. The components are scikit-learn's.
"""

from __future__ import annotations

import torch
from sklearn.decomposition import PCA

from assets.factorization.factorization import Factors, FitTask
from assets.factorization.inputs import FactorizationError


def fit_pca(task: FitTask) -> Factors:
    """The k / 2 leading principal components of the fit's tokens, each as two features."""
    n_components = task.rank // 2
    sample = task.activations[task.is_fit]
    most = min(sample.shape)
    if n_components > most:
        raise FactorizationError(
            f"pca of rank {task.rank} needs {n_components} components; {sample.shape[0]} tokens of "
            f"width {sample.shape[1]} have at most {most}: lower the rank or add documents"
        )
    model = PCA(n_components=n_components, random_state=task.seed).fit(sample.cpu().numpy())
    rows = torch.as_tensor(model.components_).to(task.activations)
    offset = torch.as_tensor(model.mean_).to(task.activations)
    projected = (task.activations - offset) @ rows.t()
    return Factors(
        dictionary=torch.stack([rows, -rows], dim=1).flatten(0, 1),
        coefficients=torch.stack([projected, -projected], dim=2).flatten(1, 2).clamp_(min=0),
        n_iter=0,
        is_converged=True,
        stop_reason="closed form",
        objective_trace=[],
        feature_names=[None] * task.rank,
        offset=offset,
    )
