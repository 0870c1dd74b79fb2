"""Factorizations as rows of the lake's tables, and dictionaries and coefficients read back.

Dense matrices become long frames of their non-zeros and return as a tensor or a sparse matrix. The
columns are declared in tables.py; site and fit are added by who writes them.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from scipy.sparse import csr_matrix
from torch import Tensor

from assets.factorization.config import FitConfig
from assets.factorization.factorization import Factorization
from assets.factorization.tables import COEFFICIENTS, DICTIONARY, FACTORIZATIONS
from assets.shared.schema import Table


def _row_schema(table: Table) -> dict[str, pl.DataType]:
    return {c.name: c.polars_type for c in table.columns if c.name not in table.partition_by}


def dictionary_frame(factorization: Factorization) -> pl.DataFrame:
    """Rows of `dictionary`: one a non-zero weight, by feature and neuron."""
    return dictionary_rows(factorization.dictionary)


def dictionary_rows(dictionary: Float[Tensor, "k d"]) -> pl.DataFrame:
    """`dictionary_frame` of a bare matrix."""
    weights = dictionary.detach().float().cpu().numpy()
    features, neurons = np.nonzero(weights)
    return pl.DataFrame(
        {"feature_id": features, "neuron": neurons, "weight": weights[features, neurons]},
        schema_overrides=_row_schema(DICTIONARY),
    )


def coefficients_frame(factorization: Factorization) -> pl.DataFrame:
    """Rows of `coefficients`: one a coefficient above zero, by token and feature."""
    values = factorization.coefficients.detach().float().cpu().numpy()
    rows, features = np.nonzero(values > 0)
    return pl.DataFrame(
        {"row": rows, "feature_id": features, "coefficient": values[rows, features]},
        schema_overrides=_row_schema(COEFFICIENTS),
    )


def factorization_frame(factorization: Factorization, fit: FitConfig) -> pl.DataFrame:
    """The one row of `factorizations` for a fit that succeeded."""
    f = factorization
    has_names = any(name is not None for name in f.feature_names)
    return _one_row(
        _settings(fit, f.seed)
        | {
            "n_tokens": f.n_tokens,
            "n_tokens_fit": f.n_tokens_fit,
            "n_massive_excluded": f.n_massive_excluded,
            "width": f.width,
            "n_features": f.n_features,
            "explained_variance": f.explained_variance,
            "explained_variance_centered": f.explained_variance_centered,
            "explained_variance_all_tokens": f.explained_variance_all_tokens,
            "l0": f.l0,
            "n_dead_features": f.n_dead_features,
            "n_iter": f.n_iter,
            "is_converged": f.is_converged,
            "stop_reason": f.stop_reason,
            "objective_trace": f.objective_trace or None,
            "explained_variance_trace": f.explained_variance_trace or None,
            "offset_vector": None if f.offset is None else f.offset.float().cpu().tolist(),
            "feature_names": f.feature_names if has_names else None,
            "seconds": f.seconds,
            "status": "ok",
        }
    )


def failed_factorization_frame(
    fit: FitConfig,
    reason: str,
    *,
    n_tokens: int,
    width: int,
    n_massive_excluded: int = 0,
    seed: int | None = None,
) -> pl.DataFrame:
    """The one row of `factorizations` for a fit that could not be made, with the reason."""
    return _one_row(
        _settings(fit, fit.seed if seed is None else seed)
        | {
            "n_tokens": n_tokens,
            "n_tokens_fit": n_tokens - n_massive_excluded,
            "n_massive_excluded": n_massive_excluded,
            "width": width,
            "status": "failed",
            "reason": reason,
        }
    )


def dictionary_matrix(frame: pl.DataFrame, n_features: int, width: int) -> Float[Tensor, "k d"]:
    """The dense dictionary of rows of `dictionary` of one site and fit.

    Raises ValueError if a row lies outside n_features x width.
    """
    _check_bounds(frame, {"feature_id": n_features, "neuron": width}, "dictionary")
    matrix = torch.zeros(n_features, width)
    index = (
        torch.from_numpy(frame["feature_id"].cast(pl.Int64).to_numpy(writable=True)),
        torch.from_numpy(frame["neuron"].cast(pl.Int64).to_numpy(writable=True)),
    )
    matrix[index] = torch.from_numpy(frame["weight"].cast(pl.Float32).to_numpy(writable=True))
    return matrix


def coefficient_matrix(frame: pl.DataFrame, n_tokens: int, n_features: int) -> csr_matrix:
    """Sparse coefficients `[n_tokens, k]` of rows of `coefficients` of one site and fit.

    Raises ValueError if a row lies outside n_tokens x n_features.
    """
    _check_bounds(frame, {"row": n_tokens, "feature_id": n_features}, "coefficients")
    return csr_matrix(
        (
            frame["coefficient"].cast(pl.Float32).to_numpy(),
            (frame["row"].to_numpy(), frame["feature_id"].to_numpy()),
        ),
        shape=(n_tokens, n_features),
    )


def _settings(fit: FitConfig, seed: int) -> dict[str, object]:
    penalty = fit.coefficient_penalty if fit.is_sparse else None
    if fit.is_iterative and fit.solver == "multiplicative":
        penalty = 0.0
    return {
        "method": fit.method,
        "rank": fit.rank,
        "solver": fit.solver if fit.is_iterative else None,
        "keep_fraction": fit.keep_fraction if fit.is_sparse else None,
        "coefficient_penalty": penalty,
        "init": fit.init if fit.is_iterative else None,
        "seed": seed,
    }


def _one_row(values: dict[str, object]) -> pl.DataFrame:
    schema = _row_schema(FACTORIZATIONS)
    return pl.DataFrame([{name: values.get(name) for name in schema}], schema=schema)


def _check_bounds(frame: pl.DataFrame, sizes: dict[str, int], table: str) -> None:
    for column, size in sizes.items():
        found = frame[column].max()
        if isinstance(found, int) and found >= size:
            raise ValueError(
                f"{table}: {column} {found} found; expected below {size}: the rows belong to "
                "another site or fit"
            )
