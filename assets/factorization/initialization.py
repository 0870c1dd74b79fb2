"""Where a fit starts: random tokens, k-means centroids, or singular vectors.

`initial_dictionary` gives the `coordinate` solver unit rows with at most s non-zeros, found on a
sample of tokens: a start costs little beside the fit, however many tokens there are.
`initial_coefficients` gives the `multiplicative` solver the positive coefficients that the paper's
code starts from (uniform random, cluster membership, or the positive part of the singular vectors;
Ding, Li and Jordan 2010, section 3). Both take their randomness from the generator alone.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from assets.factorization.inputs import Divisor, divided_rows
from assets.factorization.sparse_rows import keep_largest, unit_rows
from assets.factorization.token_blocks import TokenBlocks, sampled_rows

Init = Literal["random", "kmeans", "svd"]
INITS: tuple[Init, ...] = ("random", "kmeans", "svd")

# Rounds of spherical k-means: a start, not a clustering.
KMEANS_ROUNDS = 5
# Tokens that a start looks at: so many, and so many a feature.
SAMPLE = 2_048
SAMPLE_PER_FEATURE = 20
# Drawing first centres is the slow part: every so many-th of these is a candidate, as long as so
# many are left.
SEEDING_STRIDE = 4
CANDIDATES = 512
CANDIDATES_PER_FEATURE = 5
# A sum of tokens this small beside their lengths is zero.
BALANCE = 1e-5
# Multiplicative updates never leave zero, so every initial coefficient is at least this.
SMALLEST_COEFFICIENT = 1e-6


def initial_dictionary(
    blocks: TokenBlocks,
    divisor: Divisor,
    n_features: int,
    size: int,
    init: Init,
    generator: torch.Generator,
) -> Float[Tensor, "k d"]:
    """Unit rows with at most `size` non-zeros, for activations divided by `divisor`."""
    if init == "random":
        rows = divided_rows(sampled_rows(blocks, n_features, generator), divisor)
    else:
        n_sampled = max(SAMPLE, SAMPLE_PER_FEATURE * n_features)
        tokens = divided_rows(sampled_rows(blocks, n_sampled, generator), divisor)
        if init == "kmeans":
            rows, _ = _spherical_kmeans(tokens, n_features, generator)
        else:
            rows = _signed_singular_vectors(tokens.t(), n_features)
    return _usable_rows(unit_rows(keep_largest(rows.contiguous(), size)), size, generator)


def initial_coefficients(
    neurons: Float[Tensor, "d n_tokens"],
    n_features: int,
    init: Init,
    generator: torch.Generator,
) -> Float[Tensor, "k n_tokens"]:
    """Positive coefficients (Yᵀ); `neurons` is Aᵀ."""
    if init == "kmeans":
        _, members = _spherical_kmeans(neurons.t(), n_features, generator)
        start = torch.nn.functional.one_hot(members, n_features).t().to(neurons.dtype)
        is_balanced = _is_balanced(start, neurons)
        if is_balanced.any():
            start[is_balanced] = _uniform(neurons, int(is_balanced.sum()), generator)
    elif init == "svd":
        start = _signed_singular_vectors(neurons, n_features) @ neurons
    else:
        start = _uniform(neurons, n_features, generator)
    return start.clamp(min=SMALLEST_COEFFICIENT).contiguous()


def _uniform(neurons: Tensor, n_features: int, generator: torch.Generator) -> Tensor:
    drawn = torch.rand(n_features, neurons.shape[1], generator=generator, dtype=neurons.dtype)
    return drawn.to(neurons.device)


def _is_balanced(start: Tensor, neurons: Tensor) -> Tensor:
    """Features whose tokens add up to zero but for rounding: their updates would go nowhere, or
    where the rounding points.
    """
    sums = torch.linalg.vector_norm(start @ neurons.t(), dim=1)
    lengths = start @ torch.linalg.vector_norm(neurons, dim=0)
    return (sums <= BALANCE * lengths) & (lengths > 0)


def _spherical_kmeans(
    rows: Tensor, n_clusters: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Sums of each cluster's tokens, and each token's cluster, by cosine."""
    centres = _spread_tokens(rows, n_clusters, generator)
    members = (rows @ centres.t()).argmax(dim=1)
    sums = centres
    for _ in range(KMEANS_ROUNDS):
        sums = _sums_of_clusters(rows, members, n_clusters)
        is_empty = torch.bincount(members, minlength=n_clusters) == 0
        centres = torch.where(is_empty[:, None], centres, unit_rows(sums))
        members = (rows @ centres.t()).argmax(dim=1)
    return torch.where((sums == 0).all(dim=1, keepdim=True), centres, sums), members


def _sums_of_clusters(rows: Tensor, members: Tensor, n_clusters: int) -> Tensor:
    if rows.is_cuda:
        # There index_add adds in any order, and the same fit would not give the same start.
        return torch.nn.functional.one_hot(members, n_clusters).t().to(rows) @ rows
    sums = torch.zeros(n_clusters, rows.shape[1], dtype=rows.dtype)
    return sums.index_add_(0, members, rows)


def _spread_tokens(rows: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Unit rows of tokens drawn one by one, far from those drawn before (k-means++, by cosine)."""
    least = max(CANDIDATES, CANDIDATES_PER_FEATURE * size)
    stride = max(1, min(SEEDING_STRIDE, len(rows) // least))
    tokens = unit_rows(rows[::stride])
    distances = (tokens != 0).any(dim=1).double().cpu().clamp(min=1e-12)
    chosen = []
    for _ in range(size):
        chosen.append(int(torch.multinomial(distances, 1, generator=generator)))
        cosines = (tokens @ tokens[chosen[-1]]).double().cpu()
        # A token already drawn keeps a trace of weight: there may be no other left.
        distances = torch.minimum(distances, 1 - cosines).clamp(min=1e-12)
    return tokens[torch.tensor(chosen, device=tokens.device)]


def _signed_singular_vectors(neurons: Tensor, n_features: int) -> Tensor:
    """The leading right singular vectors of A, each with both signs, strongest first."""
    n_vectors = min((n_features + 1) // 2, *neurons.shape)
    gram = neurons @ neurons.t() if neurons.shape[0] <= neurons.shape[1] else neurons.t() @ neurons
    vectors = torch.linalg.eigh(gram).eigenvectors.flip(dims=(1,))[:, :n_vectors]
    if neurons.shape[0] > neurons.shape[1]:
        vectors = neurons @ vectors
    rows = unit_rows(vectors.t())
    signed = torch.stack([rows, -rows], dim=1).flatten(0, 1)[:n_features]
    missing = n_features - signed.shape[0]
    return torch.nn.functional.pad(signed, (0, 0, 0, missing))


def _usable_rows(rows: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Rows of zeros (all-zero tokens, too few singular vectors) replaced by random directions."""
    is_zero = (rows == 0).all(dim=1)
    if is_zero.any():
        noise = torch.randn(int(is_zero.sum()), rows.shape[1], generator=generator)
        rows[is_zero] = unit_rows(keep_largest(noise.to(rows), size))
    return rows
