"""Null controls: dictionaries that know nothing of the concepts, in the same coefficient solve.

- `random`: random unit directions with the sparsity of an SNMF feature;
- `permuted`: an SNMF dictionary, each feature's weights moved to random neurons, independently. It
  keeps every feature's weights and breaks which neurons work together;
- `covariance`: random directions that vary as the activations do, d = (A - mean)ᵀ g with a Gaussian
  weight a token, g ~ N(0, I): so d ~ N(0, n_tokens · covariance of A), thinned like an SNMF feature
  (the largest |weights| stay) and divided by its norm.

`random` and `permuted` treat all neurons alike, so they ask less: they say what a direction scores
that does not know where activations vary. Every method that sees activations knows that, and it is
worth much by itself. `covariance` knows it and nothing else: a method above it has learned more
than the data's spread. Every later stage runs all three down the same path as SNMF.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from assets.factorization.config import FitConfig
from assets.factorization.factorization import Factors, FitTask
from assets.factorization.inputs import FactorizationError, check_rank, mean_row_norm
from assets.factorization.mean_row import ROWS_AT_ONCE
from assets.factorization.snmf_method import estimator_of, estimator_with
from assets.factorization.sparse_rows import keep_largest, support_size, unit_rows
from assets.factorization.token_blocks import MatrixBlocks, TokenBlocks, each_block

# Keeps the shuffling apart from the SNMF fit that has the same seed.
PERMUTATION_SEED_OFFSET = 1_000_003
# Share of the energy of A below which its rows differ by rounding alone.
LEAST_SPREAD = 1e-24


def random_dictionary(
    n_features: int, width: int, size: int, generator: torch.Generator
) -> Float[Tensor, "k d"]:
    """Unit rows with `size` Gaussian weights on neurons drawn without replacement."""
    neurons = torch.rand(n_features, width, generator=generator).argsort(dim=1)[:, :size]
    weights = torch.randn(n_features, size, generator=generator)
    return unit_rows(torch.zeros(n_features, width).scatter_(1, neurons, weights))


def covariance_dictionary(
    blocks: TokenBlocks, n_features: int, size: int, seed: int
) -> Float[Tensor, "k d"]:
    """Unit rows: the `size` largest weights of random combinations of the centred rows.

    Each feature draws its weights for all tokens, in token order, from a seed of its own: neither
    the blocks nor the number of features change it. Summed in float64; the rows are read twice.
    Raises FactorizationError where all rows are alike, so that there is no covariance.
    """
    draws = [np.random.default_rng((seed, feature)) for feature in range(n_features)]
    total: Tensor | float = 0.0
    for rows in _pieces(blocks):
        total = total + rows.sum(dim=0)
    mean = total / sum(blocks.sizes)
    total = 0.0
    spread = energy = 0.0
    for rows in _pieces(blocks):
        weights = np.stack([draw.standard_normal(len(rows)) for draw in draws])
        centred = rows - mean
        total = total + torch.from_numpy(weights).to(rows) @ centred
        spread += float(centred.square().sum())
        energy += float(rows.square().sum())
    if spread <= LEAST_SPREAD * energy:
        raise FactorizationError(
            f"all {sum(blocks.sizes)} activation rows of the fit are alike, so they have no "
            "covariance to draw directions from; add documents, or leave out method covariance"
        )
    assert isinstance(total, Tensor)
    return unit_rows(keep_largest(total, size)).float()


def _pieces(blocks: TokenBlocks) -> Iterator[Float[Tensor, "n_rows d"]]:
    """The rows in float64, few at once: each piece is a copy."""
    for block in each_block(blocks):
        for piece in blocks.rows(block).split(ROWS_AT_ONCE):
            yield piece.double()


def permuted_rows(
    dictionary: Float[Tensor, "k d"], generator: torch.Generator
) -> Float[Tensor, "k d"]:
    """Each row with its entries in a random order of its own."""
    return dictionary.gather(1, _row_orders(dictionary, generator))


def unpermuted_rows(
    permuted: Float[Tensor, "k d"], generator: torch.Generator
) -> Float[Tensor, "k d"]:
    """The rows that `permuted_rows` was given, for a generator in the same state."""
    return torch.zeros_like(permuted).scatter_(1, _row_orders(permuted, generator), permuted)


def _row_orders(rows: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(rows.shape, generator=generator).argsort(dim=1).to(rows.device)


def controlled_dictionary(
    fit: FitConfig,
    fitted: Float[Tensor, "k d"] | None,
    blocks: TokenBlocks,
    seed: int | None = None,
) -> Float[Tensor, "k d"]:
    """The dictionary of a fit of method snmf, random, permuted or covariance.

    `fitted` is that of the SNMF fit (None where the method runs none), `blocks` the tokens of the
    fit; `seed` stands in for the fit's own.
    """
    seed = fit.seed if seed is None else seed
    if fitted is None:
        if not isinstance(fit.rank, int):
            raise ValueError(f"fit {fit.key} has no rank; expected the number of features")
        size = support_size(fit.keep_fraction, blocks.width)
        if fit.method == "covariance":
            return covariance_dictionary(blocks, fit.rank, size, seed)
        generator = torch.Generator().manual_seed(seed)
        return random_dictionary(fit.rank, blocks.width, size, generator)
    if fit.method == "permuted":
        return permuted_rows(fitted, _permutation_generator(seed))
    return fitted


def snmf_start(
    fit: FitConfig, start: Float[Tensor, "k d"] | None, seed: int | None = None
) -> Float[Tensor, "k d"] | None:
    """Where the SNMF fit behind a dictionary of the method goes on from (None: cold)."""
    if start is None or fit.method != "permuted":
        return start
    return unpermuted_rows(start, _permutation_generator(fit.seed if seed is None else seed))


def _permutation_generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed + PERMUTATION_SEED_OFFSET)


def fit_drawn(task: FitTask) -> Factors:
    """Directions drawn by chance (random, covariance); coefficients as of SemiNMF.transform."""
    blocks = MatrixBlocks(task.activations[task.is_fit])
    check_rank(task.rank, sum(blocks.sizes))
    dictionary = controlled_dictionary(task.fit, None, blocks, task.seed)
    return _factors_for(task, dictionary.to(task.activations))


def fit_permuted(task: FitTask) -> Factors:
    """The SNMF dictionary of the same settings and seed, its rows permuted.

    A start dictionary is one of this method, so the SNMF goes on from it with the rows put back.
    """
    model = estimator_of(task)
    on_fit = task.activations[task.is_fit]
    model.fit(
        on_fit,
        start=snmf_start(task.fit, task.start_dictionary, task.seed),
        on_iteration=task.on_iteration,
    )
    fitted = torch.as_tensor(model.components_)
    blocks = MatrixBlocks(on_fit)
    return _factors_for(task, controlled_dictionary(task.fit, fitted, blocks, task.seed))


def _factors_for(task: FitTask, dictionary: Tensor) -> Factors:
    scale = mean_row_norm(task.activations[task.is_fit])
    solved = estimator_with(task.fit, dictionary, scale).solve(task.activations)
    if solved.is_converged:
        reason = "coefficients solved to convergence for a fixed dictionary"
    else:
        reason = (
            f"{solved.n_unconverged_tokens} tokens still moving after {solved.n_sweeps} sweeps of "
            "the coefficient solve"
        )
    return Factors(
        dictionary=dictionary,
        coefficients=(solved.coefficients.t() * scale).contiguous(),
        n_iter=solved.n_sweeps,
        is_converged=solved.is_converged,
        stop_reason=reason,
        objective_trace=[],
        feature_names=[None] * dictionary.shape[0],
    )
