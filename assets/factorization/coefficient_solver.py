"""Non-negative coefficients of given dictionary rows: the y half of SNMF, exact per feature.

    minimise over Y >= 0   ½‖A - Y Z‖² + Σ p(Y),    p(y) = λ y - κ y² / 2   up to y = λ / κ,
                                                    p(y) = λ² / (2 κ)       from there on

λ is the coefficient penalty and κ its concavity, from 0 (the L1 norm) to below 1: the minimax
concave penalty (Zhang 2010, "Nearly unbiased variable selection under minimax concave penalty",
with γ = 1/κ). It drops small coefficients as L1 does, but lets go of large ones, which L1 shrinks
by λ each. For feature j of unit norm, the others fixed, the block is separable and its exact
minimizer is the firm threshold (Gao and Bruce 1997; Breheny and Huang 2011, section 2)

    y_j ← max(0, min(u, (u - λ) / (1 - κ))),        u = y_j + A z_j - Y Z z_j

Only P = Z Aᵀ and G = Z Zᵀ enter, never A itself. Coefficients are kept as Yᵀ `[k, n_tokens]`,
contiguous, because the sweep walks over features. The dictionary's own update is in
coordinate_solver.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from assets.factorization.sparse_rows import dictionary_products

# Features whose gradients one product with all others gives, and, within, those between two
# products with the changes made since. The order of updates stays strictly sequential.
OUTER_BLOCK = 64
FEATURE_BLOCK = 16
# Tokens per pass: a block of coefficients then stays in the processor's cache.
TOKEN_CHUNK_CPU = 8_192
TOKEN_CHUNK_ACCELERATOR = 1_048_576
# Squared norms below this count as zero: their inverse is no float32.
SMALLEST_LENGTH = 1e-30
# How near the minimum for the L1 norm a concave solve begins.
L1_START_TOL = 1e-2


@dataclass(frozen=True)
class SolvedCoefficients:
    """Yᵀ and how the solve ended."""

    coefficients: Float[Tensor, "k n_tokens"]
    n_sweeps: int
    is_converged: bool
    n_unconverged_tokens: int


def penalty_value(
    coefficients: Float[Tensor, "k n_tokens"], penalty: float, concavity: float
) -> float:
    """Σ p(Y) over all coefficients, in double precision."""
    if not penalty:
        return 0.0
    if not concavity:
        return penalty * float(coefficients.sum(dtype=torch.float64))
    # With y cut at λ/κ, p = λ y - κ y² / 2 holds for the flat part as well.
    cut = coefficients.clamp(max=penalty / concavity)
    total = penalty * float(cut.sum(dtype=torch.float64))
    return total - concavity / 2 * float(cut.square_().sum(dtype=torch.float64))


def sweep_coefficients(
    coefficients: Float[Tensor, "k n_tokens"],
    products: Float[Tensor, "k n_tokens"],
    gram: Float[Tensor, "k k"],
    penalty: float,
    concavity: float = 0.0,
) -> None:
    """One exact update of every feature's coefficients, in place and in order.

    `products` is Z Aᵀ and `gram` Z Zᵀ; with a concavity the rows of Z are of unit norm or zero.
    Features are taken in blocks of blocks: one product gives the gradients of the outer block, and
    changes made since are added by products for each inner block and one by one inside it, so the
    result is that of plain sequential updates.
    A zero dictionary row gets zero coefficients.
    """
    n_features, n_tokens = coefficients.shape
    step = TOKEN_CHUNK_CPU if coefficients.device.type == "cpu" else TOKEN_CHUNK_ACCELERATOR
    lengths = gram.diagonal().tolist()
    for begin in range(0, n_tokens, step):
        tokens = slice(begin, min(begin + step, n_tokens))
        chunk = coefficients[:, tokens]
        changes = chunk[:0]
        for start in range(0, n_features, FEATURE_BLOCK):
            block = slice(start, min(start + FEATURE_BLOCK, n_features))
            begun = start % OUTER_BLOCK
            if not begun:
                outer = slice(start, min(start + OUTER_BLOCK, n_features))
                changes = torch.addmm(products[outer, tokens], gram[outer], chunk, alpha=-1)
            gradient = changes[begun : begun + FEATURE_BLOCK]
            if begun:
                gradient.addmm_(gram[block, start - begun : start], changes[:begun], alpha=-1)
            for i in range(block.stop - start):
                j = start + i
                if lengths[j] < SMALLEST_LENGTH:
                    coefficients[j, tokens] = 0
                    gradient[i] = 0
                    continue
                if i:
                    gradient[i].addmv_(gradient[:i].t(), gram[j, start:j], alpha=-1)
                updated = torch.add(chunk[j], gradient[i], alpha=1 / lengths[j])
                if concavity:
                    firm = torch.sub(updated, penalty).mul_(1 / (1 - concavity))
                    updated = torch.minimum(updated, firm, out=updated)
                elif penalty:
                    updated.sub_(penalty / lengths[j])
                updated.clamp_(min=0)
                # The gradient is spent: its row now holds the change of this feature.
                torch.sub(updated, chunk[j], out=gradient[i])
                chunk[j] = updated


def solve_coefficients(
    neurons: Float[Tensor, "d n_tokens"],
    dictionary: Float[Tensor, "k d"],
    size: int,
    penalty: float,
    *,
    concavity: float = 0.0,
    start: Float[Tensor, "k n_tokens"] | None = None,
    max_sweeps: int = 200,
    tol: float = 1e-3,
) -> SolvedCoefficients:
    """Sweep to convergence, each token by itself.

    `neurons` is Aᵀ, `size` the largest number of non-zeros of a dictionary row, `start` a warm
    start. With a concavity the problem has several minima: the sweeps then begin near the minimum
    for the L1 norm. A token is done, and
    left alone, when no coefficient of it moved in a sweep by more than `tol` times its largest
    coefficient (or largest product, if all are zero); so what a token gets does not depend on the
    tokens it is solved with. Tokens left after `max_sweeps` are counted.
    """
    products = dictionary_products(dictionary, neurons, size)
    gram = dictionary @ dictionary.t()
    solved = products.new_zeros(products.shape) if start is None else start.clone()
    n_sweeps = n_left = 0
    stages = [(0.0, max(tol, L1_START_TOL)), (concavity, tol)] if concavity else [(0.0, tol)]
    for bend, stage_tol in stages:
        swept, n_left = _sweep_to_convergence(
            solved, products, gram, penalty, bend, max_sweeps, stage_tol
        )
        n_sweeps += swept
    return SolvedCoefficients(solved, n_sweeps, not n_left, n_left)


def _sweep_to_convergence(
    solved: Float[Tensor, "k n_tokens"],
    products: Float[Tensor, "k n_tokens"],
    gram: Float[Tensor, "k k"],
    penalty: float,
    concavity: float,
    max_sweeps: int,
    tol: float,
) -> tuple[int, int]:
    """Changes `solved` in place; returns sweeps made and tokens still moving."""
    scale = products.abs().amax(dim=0)
    active = torch.arange(products.shape[1], device=products.device)
    current, n_sweeps = solved, 0
    while n_sweeps < max_sweeps and len(active):
        before = current.clone()
        sweep_coefficients(current, products, gram, penalty, concavity)
        n_sweeps += 1
        if current is not solved:
            solved[:, active] = current
        change = before.sub_(current).abs_().amax(dim=0)
        largest = current.amax(dim=0)
        kept = (change > tol * torch.where(largest > 0, largest, scale)).nonzero().flatten()
        if len(kept) < len(active):
            active, scale = active[kept], scale[kept]
            current, products = current[:, kept], products[:, kept]
    return n_sweeps, len(active)
