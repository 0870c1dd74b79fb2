"""Planted factorizations: activations made of known sparse features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from assets.factorization.method_traits import ITERATED_METHODS, SPARSE_METHODS

# What has no effect on other methods is an error in FitConfig.
OF_SPARSE_METHODS = ("keep_fraction", "coefficient_penalty", "penalty_concavity")
OF_SNMF_FITS = ("solver", "init", "column_scaling", "row_scaling")


def settings_for(method: str, /, **settings: Any) -> dict[str, Any]:
    """The settings that mean something for a method."""
    dropped: tuple[str, ...] = ()
    if method not in SPARSE_METHODS:
        dropped += OF_SPARSE_METHODS
    if method not in ("snmf", "permuted"):
        dropped += OF_SNMF_FITS
    if method not in ITERATED_METHODS:
        dropped += ("max_iter", "tol")
    return {name: value for name, value in settings.items() if name not in dropped}


@dataclass(frozen=True)
class Planted:
    """A = Y Z + noise, with the factors it was made of."""

    activations: Tensor
    dictionary: Tensor
    coefficients: Tensor
    keep_fraction: float


def plant(
    n_tokens: int = 600,
    width: int = 120,
    n_features: int = 10,
    support: int = 6,
    active: float = 0.2,
    noise: float = 0.01,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Planted:
    generator = torch.Generator().manual_seed(seed)
    neurons = torch.rand(n_features, width, generator=generator).argsort(dim=1)[:, :support]
    weights = torch.randn(n_features, support, generator=generator)
    # No weight near zero, so that the support is there to be found.
    weights = weights.sign() * (0.5 + weights.abs())
    dictionary = torch.zeros(n_features, width).scatter_(1, neurons, weights)
    dictionary = torch.nn.functional.normalize(dictionary, dim=1)
    is_active = torch.rand(n_tokens, n_features, generator=generator) < active
    coefficients = is_active * (0.5 + torch.rand(n_tokens, n_features, generator=generator))
    activations = coefficients @ dictionary
    activations = activations + noise * torch.randn(activations.shape, generator=generator)
    return Planted(
        activations.to(dtype), dictionary.to(dtype), coefficients.to(dtype), support / width
    )


@pytest.fixture
def planted() -> Callable[..., Planted]:
    """The factory, for tests that choose their own sizes."""
    return plant
