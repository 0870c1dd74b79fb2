"""K-means in the common form: a feature is a cluster, fired on by the cluster's tokens alone.

    z_c = unit(centroid c),   y_c = max(0, z_c · a) where a's nearest centroid is c, else 0

The clusters are scikit-learn's (Lloyd's algorithm, k-means++ start), by Euclidean distance.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from assets.factorization.encoder import Encoder
from assets.factorization.factorization import Factors, FitTask
from assets.factorization.inputs import FactorizationError, check_rank, mean_row_norm
from assets.factorization.sparse_rows import unit_rows


def fit_kmeans(task: FitTask) -> Factors:
    """Clusters of the fit's tokens; every other token goes to the cluster of nearest centroid.

    A centroid of zeros (a cluster of all-zero tokens) is a zero row, which never fires. Raises
    FactorizationError for a rank above the number of distinct tokens.
    """
    sample = task.activations[task.is_fit]
    check_rank(task.rank, sample.shape[0])
    scale = mean_row_norm(sample)
    model = KMeans(
        n_clusters=task.rank,
        n_init=1,  # pyright: ignore[reportArgumentType]
        max_iter=task.fit.max_iter,
        tol=task.fit.tolerance,
        random_state=task.seed,
    )
    # More threads would add a cluster's tokens up in an order that varies from run to run.
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((sample / scale).cpu().numpy())
    n_clusters = len(np.unique(np.asarray(model.labels_)))
    if n_clusters < task.rank:
        raise FactorizationError(
            f"kmeans of rank {task.rank} found {n_clusters} clusters: the {sample.shape[0]} tokens "
            "of the fit hold no more distinct rows; lower the rank or add documents"
        )
    centroids = torch.as_tensor(model.cluster_centers_).to(task.activations)
    encoder = Encoder(
        centroids / scale, -centroids.square().sum(dim=1) / 2, n_active=1, is_projection=True
    )
    is_converged = model.n_iter_ < task.fit.max_iter
    return Factors(
        dictionary=unit_rows(centroids),
        coefficients=encoder.encode(task.activations),
        n_iter=model.n_iter_,
        is_converged=is_converged,
        stop_reason="the centroids came to rest" if is_converged else "max_iter reached",
        objective_trace=[],
        feature_names=[None] * task.rank,
        encoder=encoder,
    )
