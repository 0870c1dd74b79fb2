"""The one form that every method gives: a dictionary, coefficients, and how they came about.

A method takes a `FitTask` and returns `Factors`; `measured` adds what is computed alike for all of
them. Which methods there are is in methods.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from scipy.sparse import csr_matrix
from torch import Tensor

from assets.activations.site_names import ActivationSite
from assets.factorization.config import FitConfig
from assets.factorization.coordinate_solver import ProgressCallback
from assets.factorization.encoder import Encoder
from assets.factorization.metrics import explained_variance, l0


@dataclass(frozen=True)
class FitTask:
    """What a method is given: all tokens, which of them to fit on, and the settings."""

    activations: Float[Tensor, "n_tokens d"]
    is_fit: Bool[Tensor, " n_tokens"]
    fit: FitConfig
    seed: int
    concepts: Sequence[str | None] | None
    on_iteration: ProgressCallback | None
    # A dictionary [k, d] to go on from: the last snapshot's, its rows in order. None: a cold start.
    start_dictionary: Float[Tensor, "k d"] | None = None
    # What a transcoder maps to the activations: the same tokens at the site of fit.input_kind.
    input_activations: Float[Tensor, "n_tokens d_in"] | None = None
    # The site of the activations, where known, and the folder of a public SAE made for it.
    site: ActivationSite | None = None
    sae_folder: Path | None = None

    @property
    def rank(self) -> int:
        if not isinstance(self.fit.rank, int):
            raise ValueError(
                f"fit {self.fit.key} has rank {self.fit.rank}; expected the number of features"
            )
        return self.fit.rank


@dataclass(frozen=True)
class Factors:
    """What a method returns: factors in the units of A, for all tokens, and how it ended."""

    dictionary: Float[Tensor, "k d"]
    coefficients: Float[Tensor, "n_tokens k"]
    n_iter: int
    is_converged: bool
    stop_reason: str
    objective_trace: list[float]
    feature_names: list[str | None]
    offset: Float[Tensor, " d"] | None = None
    explained_variance_trace: list[float] = field(default_factory=list)
    # What gave the coefficients, where the dictionary alone does not.
    encoder: Encoder | None = None


@dataclass(frozen=True)
class Factorization:
    """A dictionary with coefficients for all tokens: A ≈ coefficients @ dictionary (+ offset).

    Dictionary rows have unit L2 norm; coefficients are >= 0, in the units of A, for every token,
    those of massive activation (left out of the fit) with them; a sparse matrix where the fit was
    streamed. explained_variance,
    explained_variance_centered, l0 and n_dead_features are over the tokens of the fit.
    """

    method: str
    dictionary: Float[Tensor, "k d"]
    coefficients: Float[Tensor, "n_tokens k"] | csr_matrix
    offset: Float[Tensor, " d"] | None
    feature_names: list[str | None]
    objective_trace: list[float]
    explained_variance_trace: list[float]
    n_iter: int
    is_converged: bool
    stop_reason: str
    explained_variance: float | None
    explained_variance_centered: float | None
    explained_variance_all_tokens: float | None
    l0: float
    n_dead_features: int
    seconds: float
    n_tokens_fit: int
    n_massive_excluded: int
    seed: int
    encoder: Encoder | None = None

    @property
    def n_tokens(self) -> int:
        return self.coefficients.shape[0]  # pyright: ignore[reportOptionalSubscript]

    @property
    def n_features(self) -> int:
        return self.dictionary.shape[0]

    @property
    def width(self) -> int:
        return self.dictionary.shape[1]


def measured(task: FitTask, factors: Factors, seconds: float, n_massive: int) -> Factorization:
    """The factors with the numbers that are computed alike for every method."""
    is_fit = task.is_fit
    n_fit = int(is_fit.sum())
    on_fit = factors.coefficients[is_fit]
    explained = explained_variance(
        task.activations[is_fit], on_fit, factors.dictionary, factors.offset
    )
    if n_fit == is_fit.numel():
        everywhere = explained
    else:
        everywhere = explained_variance(
            task.activations, factors.coefficients, factors.dictionary, factors.offset
        )
    return Factorization(
        method=task.fit.method,
        dictionary=factors.dictionary,
        coefficients=factors.coefficients,
        offset=factors.offset,
        feature_names=factors.feature_names,
        objective_trace=factors.objective_trace,
        explained_variance_trace=factors.explained_variance_trace,
        n_iter=factors.n_iter,
        is_converged=factors.is_converged,
        stop_reason=factors.stop_reason,
        explained_variance=explained.uncentred,
        explained_variance_centered=explained.centred,
        explained_variance_all_tokens=everywhere.uncentred,
        l0=l0(on_fit),
        n_dead_features=int((~(on_fit > 0).any(dim=0)).sum()),
        seconds=seconds,
        n_tokens_fit=n_fit,
        n_massive_excluded=n_massive,
        seed=task.seed,
        encoder=factors.encoder,
    )


def scattered(
    is_fit: Bool[Tensor, " n_tokens"],
    on_fit: Float[Tensor, "n_fit k"],
    on_rest: Float[Tensor, "n_rest k"],
) -> Float[Tensor, "n_tokens k"]:
    """Coefficients of the fit's tokens and of the others, put back in token order."""
    together = torch.empty(
        is_fit.numel(), on_fit.shape[1], dtype=on_fit.dtype, device=on_fit.device
    )
    together[is_fit] = on_fit
    together[~is_fit] = on_rest
    return together
