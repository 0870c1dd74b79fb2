"""Null controls: dictionaries that know nothing of the concepts, in the same coefficient solve.

- `random`: random unit directions with the sparsity of an SNMF feature;
- `permuted`: an SNMF dictionary, each feature's weights moved to random neurons, independently. It
  keeps every feature's weights and breaks which neurons work together.

What they score is what chance gives; every later stage runs them down the same path as SNMF.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from assets.factorization.config import FitConfig
from assets.factorization.factorization import Factors, FitTask
from assets.factorization.inputs import check_rank, mean_row_norm
from assets.factorization.snmf_method import estimator_of, estimator_with
from assets.factorization.sparse_rows import support_size, unit_rows

# Keeps the shuffling apart from the SNMF fit that has the same seed.
PERMUTATION_SEED_OFFSET = 1_000_003


def random_dictionary(
    n_features: int, width: int, size: int, generator: torch.Generator
) -> Float[Tensor, "k d"]:
    """Unit rows with `size` Gaussian weights on neurons drawn without replacement."""
    neurons = torch.rand(n_features, width, generator=generator).argsort(dim=1)[:, :size]
    weights = torch.randn(n_features, size, generator=generator)
    return unit_rows(torch.zeros(n_features, width).scatter_(1, neurons, weights))


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
    fit: FitConfig, fitted: Float[Tensor, "k d"] | None, width: int, seed: int | None = None
) -> Float[Tensor, "k d"]:
    """The dictionary of a fit of method snmf, random or permuted.

    `fitted` is that of the SNMF fit (None for random); `seed` stands in for the fit's own.
    """
    seed = fit.seed if seed is None else seed
    if fitted is None:
        if not isinstance(fit.rank, int):
            raise ValueError(f"fit {fit.key} has no rank; expected the number of features")
        generator = torch.Generator().manual_seed(seed)
        return random_dictionary(fit.rank, width, support_size(fit.keep_fraction, width), generator)
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


def fit_random(task: FitTask) -> Factors:
    """Random sparse directions; coefficients by the solve of SemiNMF.transform."""
    check_rank(task.rank, int(task.is_fit.sum()))
    dictionary = controlled_dictionary(task.fit, None, task.activations.shape[1], task.seed)
    return _factors_for(task, dictionary.to(task.activations))


def fit_permuted(task: FitTask) -> Factors:
    """The SNMF dictionary of the same settings and seed, its rows permuted.

    A start dictionary is one of this method, so the SNMF goes on from it with the rows put back.
    """
    model = estimator_of(task)
    model.fit(
        task.activations[task.is_fit],
        start=snmf_start(task.fit, task.start_dictionary, task.seed),
        on_iteration=task.on_iteration,
    )
    fitted = torch.as_tensor(model.components_)
    return _factors_for(task, controlled_dictionary(task.fit, fitted, fitted.shape[1], task.seed))


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
