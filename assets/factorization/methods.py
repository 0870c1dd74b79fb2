"""The methods by name, and the one way to run any of them.

A new comparator is a function from FitTask to Factors in a file of its own, an entry in METHODS and
a name in FitConfig.method.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from assets.activations.site_names import ActivationSite
from assets.factorization.centroids import fit_kmeans
from assets.factorization.config import FitConfig
from assets.factorization.coordinate_solver import ProgressCallback
from assets.factorization.diff_means import fit_diff_means
from assets.factorization.factorization import Factorization, Factors, FitTask, measured
from assets.factorization.inputs import FactorizationError, as_matrix
from assets.factorization.neuron_basis import fit_neurons
from assets.factorization.null_controls import fit_drawn, fit_permuted
from assets.factorization.positive_parts import fit_nmf
from assets.factorization.principal_components import fit_pca
from assets.factorization.snmf_method import fit_snmf
from assets.factorization.sparse_autoencoder import fit_sae
from assets.factorization.transcoder import fit_transcoder

METHODS: Mapping[str, Callable[[FitTask], Factors]] = {
    "snmf": fit_snmf,
    "sae": fit_sae,
    "transcoder": fit_transcoder,
    "diff_means": fit_diff_means,
    "pca": fit_pca,
    "kmeans": fit_kmeans,
    "nmf": fit_nmf,
    "neurons": fit_neurons,
    "random": fit_drawn,
    "permuted": fit_permuted,
    "covariance": fit_drawn,
}


def factorize(
    activations: Float[Tensor, "n_tokens d"],
    fit: FitConfig,
    *,
    concepts: Sequence[str | None] | None = None,
    is_massive: Bool[Tensor, " n_tokens"] | None = None,
    is_held_out: Bool[Tensor, " n_tokens"] | None = None,
    seed: int | None = None,
    start_dictionary: Float[Tensor, "k d"] | None = None,
    input_activations: Float[Tensor, "n_tokens d_in"] | None = None,
    site: ActivationSite | None = None,
    sae_folder: Path | None = None,
    on_iteration: ProgressCallback | None = None,
) -> Factorization:
    """Factorize activations by the fit's method.

    `concepts` gives each token's concept (None: no concept); `is_massive` marks tokens to leave out
    of the fit, `is_held_out` those that a supervised method must not see; all get coefficients all
    the same. `seed` stands in for the fit's own; `start_dictionary` is where an iterative
    method goes on from; `input_activations` are the same tokens at the site that a transcoder
    reads. `site` and `sae_folder` belong to a public SAE: what it must have been made for, and
    where it is (the fit's `path` without it). Raises FactorizationError where the input admits no
    fit (see inputs.py and the method).
    """
    matrix = as_matrix(activations)
    n_tokens = matrix.shape[0]
    if is_massive is None:
        is_fit = torch.ones(n_tokens, dtype=torch.bool, device=matrix.device)
    elif is_massive.shape != (n_tokens,):
        raise FactorizationError(
            f"is_massive has shape {list(is_massive.shape)}; expected one flag for each of the "
            f"{n_tokens} tokens"
        )
    else:
        is_fit = ~is_massive.to(device=matrix.device, dtype=torch.bool)
    if not is_fit.any():
        raise FactorizationError(
            f"all {n_tokens} tokens are flagged massive; none is left to fit: raise the threshold "
            "that flags them"
        )
    n_massive = int((~is_fit).sum())
    if is_held_out is not None and fit.is_supervised:
        is_fit &= ~is_held_out.to(is_fit)
    task = FitTask(
        activations=matrix,
        is_fit=is_fit,
        fit=fit,
        seed=fit.seed if seed is None else seed,
        concepts=concepts,
        on_iteration=on_iteration,
        start_dictionary=start_dictionary,
        input_activations=None if input_activations is None else as_matrix(input_activations),
        site=site,
        sae_folder=sae_folder,
    )
    begin = time.perf_counter()
    factors = METHODS[fit.method](task)
    return measured(task, factors, time.perf_counter() - begin, n_massive)
