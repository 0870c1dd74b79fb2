"""The estimator at the size of the planted activations."""

from __future__ import annotations

from assets.factorization.semi_nmf import SemiNMF


def estimator(keep_fraction=0.05, n_components=10, **settings):
    return SemiNMF(n_components=n_components, keep_fraction=keep_fraction, **settings)
