"""Dictionary rows with at most s non-zeros: the projection H_s and products that use the sparsity.

H_s keeps the s largest magnitudes of a row: the Euclidean projection on s-sparse vectors, the
winner-take-all step of Shafran, Geiger and Geva (2025), "Decomposing MLP Activations into
Interpretable Features via Semi-Nonnegative Matrix Factorization". Fitting is not here.
"""

from __future__ import annotations

import math
import warnings

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Above this share of non-zeros one dense product beats the sparse one (measured at d = 1,536).
DENSE_PRODUCT_SHARE = 0.1


def support_size(keep_fraction: float, width: int) -> int:
    """s = ceil(keep_fraction * width), from 1 to `width`."""
    return min(width, max(1, math.ceil(keep_fraction * width - 1e-9)))


def largest_positions(rows: Float[Tensor, "k d"], size: int) -> Int[Tensor, "k s"]:
    """Neurons of each row's `size` largest magnitudes: its support, if it is `size`-sparse."""
    return rows.abs().topk(min(size, rows.shape[1]), dim=1).indices


def keep_largest(rows: Float[Tensor, "k d"], size: int) -> Float[Tensor, "k d"]:
    """H_s: each row with all but its `size` largest magnitudes set to zero."""
    if size >= rows.shape[1]:
        return rows.clone()
    kept = largest_positions(rows, size)
    return torch.zeros_like(rows).scatter_(1, kept, rows.gather(1, kept))


def unit_rows(rows: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
    """Rows divided by their L2 norm; rows of zeros stay zero."""
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(norms > 0, norms, torch.ones_like(norms))


def dictionary_products(
    dictionary: Float[Tensor, "k d"], neurons: Float[Tensor, "d n_tokens"], size: int
) -> Float[Tensor, "k n_tokens"]:
    """Z Aᵀ from the `size` non-zeros of each dictionary row: k·s·n work instead of k·d·n.

    `neurons` is Aᵀ with contiguous rows (one a neuron), so each non-zero adds one contiguous row:
    1.3 ms against 20 ms for the dense product at n = 7,628, d = 1,536, k = 100, s = 16 on 2 cores.
    """
    n_features, width = dictionary.shape
    has_sparse_product = dictionary.is_cuda or torch.backends.mkl.is_available()
    if size >= DENSE_PRODUCT_SHARE * width or not has_sparse_product:
        return dictionary @ neurons
    support = largest_positions(dictionary, size).sort(dim=1).values
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        sparse = torch.sparse_csr_tensor(
            torch.arange(0, n_features * size + 1, size, device=support.device),
            support.flatten(),
            dictionary.gather(1, support).flatten(),
            size=(n_features, width),
            check_invariants=False,
        )
        return sparse @ neurons
