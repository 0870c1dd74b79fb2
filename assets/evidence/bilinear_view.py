"""What a feature reads, from the weights alone: the bilinear view of a gated MLP.

With the activation dropped, h_i = (a_i · n)(b_i · n) for the gate's row a_i, the up projection's
row b_i and the normalised stream n. A direction w over neurons then reads the quadratic form

    w · h = nᵀ B n,    B = ½ Σ_i w_i (a_i b_iᵀ + b_i a_iᵀ),

whose eigenvectors are the directions it looks for: n along ±v of eigenvalue λ adds λ (v · n)².
Source: Pearce et al. 2024, "Bilinear MLPs enable weight-based mechanistic interpretability", arXiv
2410.08417. For a feature of mlp_hidden w is the feature; for a direction d of mlp_out it is W d,
W the down projection (and the norm after it).

An approximation, not what the model computes: SiLU and GELU pass large positive gates as they are,
halve small ones and drop negative ones, whereas B counts a negative gate with its sign. So an
eigenvector is a hypothesis, to be held against contexts. Tokens stand by the cosine of their input
embedding with v, which says most in early layers. Where the maps lie is activations/gated_mlp.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

from assets.activations.gated_mlp import GatedMlp, gated_mlp
from assets.activations.sites import (
    ActivationSite,
    block_parts,
    down_projection_weight,
    norm_scale,
)
from assets.evidence.tables import BILINEAR_VIEW
from assets.evidence.vocab_projection import decode_vocabulary

SITE_KINDS_READ = ("mlp_hidden", "mlp_out")
SIDES = {"+": 1.0, "-": -1.0}
_START_SEED = 0  # of the eigensolver's start: the same weights give the same eigenvectors
_LEAST_SHARE = 1e-7  # eigenvalues below this share of the largest are rounding, not B's


@dataclass(frozen=True)
class Eigenvectors:
    """Rows are unit eigenvectors, largest |eigenvalue| first; of each, the largest entry is > 0.

    `frobenius_squared` is ‖B‖²: the eigenvalue's square over it is the share it explains.
    """

    values: Float[np.ndarray, " n"]
    vectors: Float[np.ndarray, "n d_model"]
    frobenius_squared: float


def unreadable_because(model: Any, site: ActivationSite) -> str | None:
    """Why a site has no bilinear view, in words; None where it has one."""
    if site.kind not in SITE_KINDS_READ:
        return f"features of {site.kind} are not read by an MLP's neurons; only mlp_hidden, mlp_out"
    if gated_mlp(model, site.layer) is None:
        return f"the MLP of {type(model).__name__} is not gated, so it has no bilinear form"
    return None


@torch.no_grad()
def neuron_weights(
    model: Any, site: ActivationSite, features: Float[Tensor, "k d"]
) -> Float[Tensor, "k d_mlp"]:
    """Each feature as weights w over the MLP's neurons."""
    if site.kind == "mlp_hidden":
        return features.float()
    post_norm = block_parts(model, site.layer).mlp_post_norm
    down = down_projection_weight(model, site.layer).float()
    scaled = features.float().to(down.device)
    if post_norm is not None:
        scaled = scaled * norm_scale(post_norm)
    return scaled @ down.T


def top_eigenvectors(
    mlp: GatedMlp, weights: Float[Tensor, " d_mlp"], n_eigenvectors: int
) -> Eigenvectors | None:
    """The eigenvectors of B of largest |λ|, `n_eigenvectors` at most; None where B is zero.

    Those of eigenvalue zero (|λ| <= 1e-7 of the largest |λ|) are left out: any direction that B
    does not read is one, and which the solver gives is chance. B has rank 2 a neuron used at most.
    B is formed only where that is the smaller thing (more neurons used than d_model); otherwise
    the Lanczos method sees it as an operator. Without convergence there, B is formed after all.
    """
    used = weights.nonzero().flatten().to(mlp.first.device)
    w = weights.to(used.device)[used].double().cpu().numpy()
    a = mlp.first[used].double().cpu().numpy()
    b = mlp.second[used].double().cpu().numpy()
    width = mlp.first.shape[1]
    n = min(n_eigenvectors, width)
    is_formed = len(w) > width or n >= width - 1
    matrix = _formed(a, b, w) if is_formed else None
    squared = float(np.square(matrix).sum()) if matrix is not None else _frobenius(a, b, w)
    # Opposite terms may cancel; what rounding leaves of them is no matrix.
    size = float((np.abs(w) * np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)).sum())
    if squared <= (1e-7 * size) ** 2:
        return None
    if n >= width - 1:
        assert matrix is not None
        values, vectors = np.linalg.eigh(matrix)
    else:
        operator = matrix if matrix is not None else _operator(a, b, w, width)
        start = np.random.default_rng(_START_SEED).standard_normal(width)
        try:
            values, vectors = eigsh(operator, k=n, which="LM", v0=start)
        except ArpackNoConvergence:
            values, vectors = np.linalg.eigh(_formed(a, b, w))
    order = np.argsort(-np.abs(values), kind="stable")[:n]
    sizes = np.abs(values[order])
    order = order[sizes > _LEAST_SHARE * sizes[0]]
    rows = vectors[:, order].T
    largest = np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1)
    return Eigenvectors(values[order], rows * np.sign(largest), squared)


@torch.no_grad()
def view_bilinear(
    model: Any,
    tokenizer: Any,
    site: ActivationSite,
    dictionary: Float[Tensor, "k d"],
    *,
    feature_ids: Sequence[int],
    n_eigenvectors: int,
    n_tokens: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """Rows of `bilinear_view`, without its partition columns; `feature_ids` name dictionary rows.

    A feature whose B is zero has no rows. Raises ValueError where `unreadable_because` has a word.
    """
    mlp = gated_mlp(model, site.layer)
    reason = unreadable_because(model, site)
    if mlp is None or reason is not None:
        raise ValueError(f"site {site.key} has no bilinear view: {reason}")
    embedding = model.get_input_embeddings().weight.float()
    embedding = torch.nn.functional.normalize(embedding, dim=1)
    texts = decode_vocabulary(tokenizer, len(embedding))
    readable = torch.tensor([text is not None for text in texts], device=embedding.device)
    count = min(n_tokens, int(readable.sum()))
    rows: list[tuple[object, ...]] = []
    for done, (feature_id, weights) in enumerate(
        zip(feature_ids, neuron_weights(model, site, dictionary), strict=True), start=1
    ):
        found = top_eigenvectors(mlp, weights, n_eigenvectors)
        if found is not None:
            vectors = torch.from_numpy(found.vectors).to(embedding)
            cosines = vectors @ embedding.T
            shares = np.square(found.values) / found.frobenius_squared
            for side, factor in SIDES.items():
                top = (factor * cosines).masked_fill(~readable, float("-inf")).topk(count, dim=1)
                for rank, (scores, tokens) in enumerate(
                    zip(top.values.tolist(), top.indices.tolist(), strict=True)
                ):
                    value, share = float(found.values[rank]), min(1.0, float(shares[rank]))
                    rows += [
                        (feature_id, rank, value, share, side, place, token, texts[token], score)
                        for place, (score, token) in enumerate(zip(scores, tokens, strict=True))
                    ]
        if on_progress is not None:
            on_progress(done, len(feature_ids))
    schema = {
        c.name: c.polars_type
        for c in BILINEAR_VIEW.columns
        if c.name not in BILINEAR_VIEW.partition_by
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def _formed(a: NDArray, b: NDArray, w: NDArray) -> NDArray:
    half = (a * w[:, None]).T @ b / 2
    return half + half.T


def _operator(a: NDArray, b: NDArray, w: NDArray, width: int) -> LinearOperator:
    def product(v: NDArray) -> NDArray:
        v = v.reshape(-1)
        return (a.T @ (w * (b @ v)) + b.T @ (w * (a @ v))) / 2

    return LinearOperator((width, width), matvec=product, dtype=np.float64)  # pyright: ignore


def _frobenius(a: NDArray, b: NDArray, w: NDArray) -> float:
    """‖B‖² = ½ Σ_ij w_i w_j ((a_i·a_j)(b_i·b_j) + (a_i·b_j)(b_i·a_j)), B not formed."""
    crossed = a @ b.T
    kernel = (a @ a.T) * (b @ b.T) + crossed * crossed.T
    return float(w @ kernel @ w) / 2
