"""SNMF by exact block-coordinate minimization (the default solver).

    minimise ½‖A - Y Z‖² + Σ p(Y)   subject to Y >= 0, rows of Z of unit L2 norm with <= s non-zeros

(p: coefficient_solver.py). Two kinds of block, each replaced by its exact minimizer, so the
objective never rises:

- y_j, all else fixed: the firm threshold of its least-squares value (coefficient_solver.py);
- z_j, all else fixed: the unit s-sparse row that correlates most with the residual that y_j sees,
      z_j ← w / ‖w‖,   w = H_s(‖y_j‖² z_j + Aᵀ y_j - Zᵀ Yᵀ y_j),
  H_s keeping the s largest magnitudes. (On unit rows the block is linear in z_j.)

A fit begins with the L1 norm (κ = 0), whose coefficients have one minimum, and goes over to κ once
an iteration brings little: on planted data a concave start misses features. p only falls with κ,
so the objective does not rise there either.

Per iteration only Yᵀ A is a dense pass over the activations: Z Aᵀ needs Z's non-zeros, and the loss
is ‖A‖² - 2⟨Z, YᵀA⟩ + ⟨Z Zᵀ, Yᵀ Y⟩. All of these add up over blocks of tokens, so a fit streams over
shards (token_blocks.py) and gives what it gives in memory, up to the order of summation. A dead
feature (y_j = 0) does not enter the objective, so giving it a new row changes nothing until the
next exact y_j lowers the objective. Final coefficients and units are semi_nmf.py's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from assets.factorization.coefficient_solver import (
    FEATURE_BLOCK,
    penalty_value,
    solve_coefficients,
    sweep_coefficients,
)
from assets.factorization.inputs import Divisor
from assets.factorization.sparse_rows import dictionary_products, keep_largest, unit_rows
from assets.factorization.token_blocks import (
    CoefficientStore,
    MemoryStore,
    TokenBlocks,
    each_block,
)

# How often one feature may be given a new row, so that rows nobody needs don't keep a fit running.
MAX_RESEEDS = 5

# The L1 norm gives way to the concave penalty when an iteration brings less than this share.
L1_TOL = 4e-3

ProgressCallback = Callable[[int, float], None]


@dataclass(frozen=True)
class SolverResult:
    """A dictionary and how its fit ended."""

    dictionary: Float[Tensor, "k d"]
    objective_trace: list[float]
    explained_variance_trace: list[float]
    is_converged: bool
    stop_reason: str
    # κ at the end: 0 where a fit ended before the concave penalty's turn.
    concavity: float = 0.0


def penalized_objective(
    dictionary: Float[Tensor, "k d"],
    token_products: Float[Tensor, "k d"],
    coefficient_gram: Float[Tensor, "k k"],
    coefficient_sum: float,
    squared_norm: float,
    penalty: float,
) -> float:
    """½‖A - Y Z‖² + λ ΣY by the trace identity, from Yᵀ A, Yᵀ Y, ΣY and ‖A‖²; never below 0."""
    gram = dictionary @ dictionary.t()
    explained = 2 * _inner(dictionary, token_products) - _inner(gram, coefficient_gram)
    return max(0.0, 0.5 * (squared_norm - explained)) + penalty * coefficient_sum


def explained_share(half_squared_error: float, squared_norm: float) -> float:
    """Explained variance 1 - ‖A - Y Z‖² / ‖A‖² from ½‖A - Y Z‖² (0 for an A of zeros)."""
    return 1.0 - 2.0 * half_squared_error / squared_norm if squared_norm else 0.0


def fit_coordinate(
    blocks: TokenBlocks,
    divisor: Divisor,
    dictionary: Float[Tensor, "k d"],
    size: int,
    penalty: float,
    *,
    concavity: float = 0.0,
    is_warm: bool = False,
    max_iter: int,
    tol: float,
    store: CoefficientStore | None = None,
    on_iteration: ProgressCallback | None = None,
) -> SolverResult:
    """Fit A / divisor from an initial dictionary with unit rows.

    Stops when an iteration lowers the objective by less than `tol` times its value. A warm start's
    coefficients are solved first, for its dictionary as it is, and the L1 norm has no turn: it
    would only move features from where they ended. `store` keeps the coefficients between
    iterations (default: in memory); they end as they were before the last dictionary update.
    """
    dictionary = dictionary.clone()
    store = store or MemoryStore(blocks, dictionary.shape[0], dictionary)
    if is_warm:
        for block in each_block(blocks):
            neurons = blocks.neurons(block, divisor)
            solved = solve_coefficients(neurons, dictionary, size, penalty, concavity=concavity)
            store.save(block, solved.coefficients)
            del neurons, solved  # before the next block is read
    reseeds_left = torch.full((dictionary.shape[0],), MAX_RESEEDS, device=dictionary.device)
    trace: list[float] = []
    variance_trace: list[float] = []
    is_converged, wants_worst = False, True
    squared_norm: float | None = None
    bend = concavity if is_warm else 0.0
    for iteration in range(max_iter):
        sums = _sweep_blocks(
            blocks, divisor, dictionary, size, penalty, bend, store, wants_worst, squared_norm
        )
        squared_norm = sums.squared_norm
        is_dead = sums.coefficient_gram.diagonal() == 0
        wants_worst = bool((is_dead & (reseeds_left > 0)).any())
        n_reseeded = 0
        if wants_worst and sums.worst is not None:
            n_reseeded = reseed(dictionary, is_dead & (reseeds_left > 0), sums.worst.rows, penalty)
            reseeds_left -= is_dead.long()
        sweep_dictionary(dictionary, sums.token_products, sums.coefficient_gram, size)
        error = penalized_objective(
            dictionary, sums.token_products, sums.coefficient_gram, 0.0, squared_norm, 0.0
        )
        trace.append(error + sums.penalty)
        variance_trace.append(explained_share(error, squared_norm))
        if on_iteration is not None:
            on_iteration(iteration, trace[-1])
        if len(trace) > 1 and not n_reseeded:
            # The floor keeps an exact fit (objective at rounding level) from running on.
            share = (trace[-2] - trace[-1]) / max(trace[-1], 1e-7 * squared_norm)
            if bend == concavity and share < tol:
                is_converged = True
                break
            if share < max(tol, L1_TOL):
                bend = concavity
    if is_converged:
        reason = f"the objective fell by less than {tol:g} of its value in an iteration"
    else:
        reason = f"max_iter = {max_iter} iterations reached"
        if bend != concavity:
            reason += ", before the concave penalty's turn"
    return SolverResult(dictionary, trace, variance_trace, is_converged, reason, bend)


class _WorstTokens:
    """The tokens explained worst so far, as s-sparse residual rows, worst first."""

    def __init__(self, n_tokens: int, size: int) -> None:
        self._n_tokens = n_tokens
        self._size = size
        self._errors: Tensor | None = None
        self.rows: Tensor = torch.empty(0)

    def add(
        self,
        dictionary: Float[Tensor, "k d"],
        neurons: Float[Tensor, "d n_block"],
        coefficients: Float[Tensor, "k n_block"],
        products: Float[Tensor, "k n_block"],
        gram: Float[Tensor, "k k"],
        token_norms: Float[Tensor, " n_block"],
    ) -> None:
        # ‖a - y Z‖² of every token, without forming Y Z.
        errors = token_norms + (coefficients * (gram @ coefficients - 2 * products)).sum(dim=0)
        worst = errors.topk(min(self._n_tokens, len(errors))).indices
        residual = neurons[:, worst].t() - coefficients[:, worst].t() @ dictionary
        rows, errors = keep_largest(residual, self._size), errors[worst]
        if self._errors is not None:
            rows, errors = torch.cat([self.rows, rows]), torch.cat([self._errors, errors])
            kept = errors.topk(min(self._n_tokens, len(errors))).indices
            rows, errors = rows[kept], errors[kept]
        self.rows, self._errors = rows, errors


@dataclass
class _Sums:
    """What an iteration needs of all tokens: Yᵀ A, Yᵀ Y, ‖A‖², Σ p(Y) and the worst tokens."""

    token_products: Float[Tensor, "k d"]
    coefficient_gram: Float[Tensor, "k k"]
    squared_norm: float
    penalty: float
    worst: _WorstTokens | None


def _sweep_blocks(
    blocks: TokenBlocks,
    divisor: Divisor,
    dictionary: Float[Tensor, "k d"],
    size: int,
    penalty: float,
    concavity: float,
    store: CoefficientStore,
    wants_worst: bool,
    squared_norm: float | None,
) -> _Sums:
    """One exact update of every coefficient, block after block, and the sums over all tokens.

    `squared_norm` is ‖A‖² where an earlier pass has found it.
    """
    n_features = dictionary.shape[0]
    gram = dictionary @ dictionary.t()
    sums = _Sums(
        token_products=torch.zeros_like(dictionary),
        coefficient_gram=torch.zeros_like(gram),
        squared_norm=squared_norm or 0.0,
        penalty=0.0,
        worst=_WorstTokens(n_features, size) if wants_worst else None,
    )
    for block in each_block(blocks):
        neurons = blocks.neurons(block, divisor)
        products = dictionary_products(dictionary, neurons, size)
        coefficients = store.load(block)
        sweep_coefficients(coefficients, products, gram, penalty, concavity)
        store.save(block, coefficients)
        sums.token_products.addmm_(coefficients, neurons.t())
        sums.coefficient_gram.addmm_(coefficients, coefficients.t())
        sums.penalty += penalty_value(coefficients, penalty, concavity)
        if squared_norm is None or sums.worst is not None:
            token_norms = torch.linalg.vector_norm(neurons, dim=0).square_()
            if squared_norm is None:
                sums.squared_norm += float(token_norms.sum(dtype=torch.float64))
            if sums.worst is not None:
                sums.worst.add(dictionary, neurons, coefficients, products, gram, token_norms)
        # Else this block would still be held while the next one is read.
        del neurons, products, coefficients
    return sums


def sweep_dictionary(
    dictionary: Float[Tensor, "k d"],
    token_products: Float[Tensor, "k d"],
    coefficient_gram: Float[Tensor, "k k"],
    size: int,
) -> None:
    """One exact update of every z_j, in order and in place, from Yᵀ A and Yᵀ Y.

    Dead features, and those that nothing of the residual supports, keep their row.
    """
    n_features = dictionary.shape[0]
    energies = coefficient_gram.diagonal().tolist()
    for start in range(0, n_features, FEATURE_BLOCK):
        block = slice(start, min(start + FEATURE_BLOCK, n_features))
        gradient = torch.addmm(token_products[block], coefficient_gram[block], dictionary, alpha=-1)
        for i in range(block.stop - start):
            j = start + i
            if energies[j] <= 0:
                gradient[i] = 0
                continue
            if i:
                gradient[i].addmv_(gradient[:i].t(), coefficient_gram[j, start:j], alpha=-1)
            target = gradient[i].add_(dictionary[j], alpha=energies[j])
            kept = target.abs().topk(size).indices
            values = target[kept]
            length = torch.linalg.vector_norm(values)
            row = torch.zeros_like(target)
            row[kept] = values / torch.where(length > 0, length, 1.0)
            row = torch.where(length > 0, row, dictionary[j])
            # The gradient is spent: its row now holds the change of this row.
            torch.sub(row, dictionary[j], out=gradient[i])
            dictionary[j] = row


def reseed(
    dictionary: Float[Tensor, "k d"],
    wants_row: Bool[Tensor, " k"],
    worst_rows: Float[Tensor, "n_worst d"],
    penalty: float,
) -> int:
    """Point dead features at the tokens explained worst, in place; returns how many changed.

    The i-th dead feature gets the s-sparse residual of the i-th worst token, if that direction
    alone would overcome the penalty.
    """
    features = wants_row.nonzero().flatten()
    rows = worst_rows[: len(features)]
    features = features[: len(rows)]
    is_useful = torch.linalg.vector_norm(rows, dim=1) > penalty
    dictionary[features[is_useful]] = unit_rows(rows[is_useful])
    return int(is_useful.sum())


def _inner(left: Tensor, right: Tensor) -> float:
    return float((left * right).sum(dtype=torch.float64))
