"""Factorizations as rows of the lake's tables, and dictionaries and coefficients read back.

Dense matrices become long frames of their non-zeros and return as a tensor or a sparse matrix. In
frames a feature goes by its feature_id, which it keeps over refits (identity.py), so ids need not
be contiguous: a list of ids, in the order of the dictionary's rows, stands between the two. The
columns are declared in tables.py; site and fit are added by who writes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

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

Start = Literal["cold", "warm", "projected"]


def _row_schema(table: Table) -> dict[str, pl.DataType]:
    return {c.name: c.polars_type for c in table.columns if c.name not in table.partition_by}


def dictionary_frame(
    factorization: Factorization, feature_ids: Sequence[int] | None = None
) -> pl.DataFrame:
    """Rows of `dictionary`: one a non-zero weight, by feature and neuron."""
    return dictionary_rows(factorization.dictionary, feature_ids)


def dictionary_rows(
    dictionary: Float[Tensor, "k d"], feature_ids: Sequence[int] | None = None
) -> pl.DataFrame:
    """`dictionary_frame` of a bare matrix; `feature_ids` name its rows (0 … k − 1 without)."""
    weights = dictionary.detach().float().cpu().numpy()
    features, neurons = np.nonzero(weights)
    ids = _ids(feature_ids, len(weights))
    return pl.DataFrame(
        {"feature_id": ids[features], "neuron": neurons, "weight": weights[features, neurons]},
        schema_overrides=_row_schema(DICTIONARY),
    )


def coefficients_frame(
    factorization: Factorization, feature_ids: Sequence[int] | None = None
) -> pl.DataFrame:
    """Rows of `coefficients`: one a coefficient above zero, by token and feature."""
    values = factorization.coefficients
    if isinstance(values, Tensor):
        values = csr_matrix(values.detach().float().cpu().numpy())
    entries = values.tocoo()
    is_above = entries.data > 0
    ids = _ids(feature_ids, values.shape[1])  # pyright: ignore[reportOptionalSubscript]
    return pl.DataFrame(
        {
            "row": entries.row[is_above],
            "feature_id": ids[entries.col[is_above]],
            "coefficient": entries.data[is_above],
        },
        schema_overrides=_row_schema(COEFFICIENTS),
    )


@dataclass(frozen=True)
class FitHistory:
    """What a row of `factorizations` says of its fit beside the factors: ids, start and inputs."""

    feature_ids: Sequence[int]
    next_feature_id: int
    start: Start = "cold"
    started_from_snapshot: int | None = None
    n_tokens_changed: int = 0
    activation_scale: float | None = None
    mean_row: Sequence[float] | None = None
    stability: float | None = None
    inputs_fingerprint: str | None = None
    activations_digest: str | None = None


def factorization_frame(
    factorization: Factorization, fit: FitConfig, history: FitHistory | None = None
) -> pl.DataFrame:
    """The one row of `factorizations` for a fit that succeeded; a first, cold one by default."""
    f = factorization
    history = history or FitHistory(range(f.n_features), f.n_features)
    has_names = any(name is not None for name in f.feature_names)
    return _one_row(
        settings_of(fit, f.seed)
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
            **vars(history),
            "feature_ids": list(history.feature_ids),
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
        settings_of(fit, fit.seed if seed is None else seed)
        | {
            "n_tokens": n_tokens,
            "n_tokens_fit": n_tokens - n_massive_excluded,
            "n_massive_excluded": n_massive_excluded,
            "width": width,
            "status": "failed",
            "reason": reason,
        }
    )


def activations_digest(shards: Sequence[str]) -> str:
    """Hash (16 hex digits) of the checksums of a site's activation files, in order."""
    return hashlib.sha256("|".join(shards).encode()).hexdigest()[:16]


def fitted_row(factorizations: pl.DataFrame, shards: Sequence[str] | None = None) -> dict[str, Any]:
    """The row of one site and fit, which later stages begin with.

    `shards` are the checksums of the site's activation files as they are now. Raises ValueError
    where there is no row, where the fit failed, and where it was made of other activations.
    """
    if factorizations.is_empty():
        raise ValueError(
            "no factorization of this site and fit is in the lake; materialize `factorizations` "
            "of the partition first"
        )
    row = factorizations.row(0, named=True)
    if row["status"] != "ok":
        raise ValueError(
            f"the factorization of this site and fit has status {row['status']!r}, expected 'ok': "
            f"{row['reason']}; mend the cause and materialize `factorizations` again"
        )
    if shards is not None and row["activations_digest"] not in (None, activations_digest(shards)):
        raise ValueError(
            "the factorization of this site and fit was made of other activations than the site "
            "has now (its refit may have failed); materialize `factorizations` again"
        )
    return row


def feature_ids_of(row: Mapping[str, Any]) -> list[int]:
    """Feature ids of a row of `factorizations`, in the order of the dictionary's rows.

    A row from before features had ids of their own counts them: 0 … k − 1.
    """
    ids = row.get("feature_ids")
    return list(range(row["n_features"])) if ids is None else list(ids)


def dictionary_matrix(
    frame: pl.DataFrame, feature_ids: Sequence[int], width: int
) -> Float[Tensor, "k d"]:
    """The dense dictionary of rows of `dictionary` of one site and fit.

    Row i is the feature `feature_ids[i]`. Raises ValueError if a row of the frame has another
    feature or a neuron outside the width.
    """
    features = _positions(frame, feature_ids, "dictionary")
    _check_bound(frame, "neuron", width, "dictionary")
    matrix = torch.zeros(len(feature_ids), width)
    neurons = torch.from_numpy(frame["neuron"].cast(pl.Int64).to_numpy(writable=True))
    weights = torch.from_numpy(frame["weight"].cast(pl.Float32).to_numpy(writable=True))
    matrix[torch.from_numpy(features), neurons] = weights
    return matrix


def coefficient_matrix(
    frame: pl.DataFrame, n_tokens: int, feature_ids: Sequence[int]
) -> csr_matrix:
    """Sparse coefficients `[n_tokens, k]` of rows of `coefficients` of one site and fit.

    Column i is the feature `feature_ids[i]`. Raises ValueError if a row of the frame has another
    feature or lies outside n_tokens.
    """
    features = _positions(frame, feature_ids, "coefficients")
    _check_bound(frame, "row", n_tokens, "coefficients")
    return csr_matrix(
        (
            frame["coefficient"].cast(pl.Float32).to_numpy(),
            (frame["row"].to_numpy(), features),
        ),
        shape=(n_tokens, len(feature_ids)),
    )


def settings_of(fit: FitConfig, seed: int) -> dict[str, object]:
    """The columns of `factorizations` that hold a fit's settings."""
    is_coordinate = fit.is_iterative and fit.solver == "coordinate"
    penalty = fit.coefficient_penalty if fit.is_sparse else None
    if fit.is_iterative and not is_coordinate:
        penalty = 0.0
    return {
        "method": fit.method,
        "rank": fit.rank if isinstance(fit.rank, int) else None,
        "solver": fit.solver if fit.is_iterative else None,
        "keep_fraction": fit.keep_fraction if fit.is_sparse else None,
        "coefficient_penalty": penalty,
        "penalty_concavity": fit.penalty_concavity if penalty else None,
        "column_scaling": fit.column_scaling if is_coordinate else None,
        "row_scaling": fit.row_scaling if is_coordinate else None,
        "init": fit.init if fit.is_iterative else None,
        "seed": seed,
    }


def _one_row(values: dict[str, object]) -> pl.DataFrame:
    schema = _row_schema(FACTORIZATIONS)
    return pl.DataFrame([{name: values.get(name) for name in schema}], schema=schema)


def _ids(feature_ids: Sequence[int] | None, n_features: int) -> np.ndarray:
    if feature_ids is None:
        return np.arange(n_features, dtype=np.int32)
    if len(feature_ids) != n_features or len(set(feature_ids)) != n_features:
        raise ValueError(
            f"{len(feature_ids)} feature ids found ({len(set(feature_ids))} different); expected "
            f"one of its own for each of the {n_features} features"
        )
    return np.asarray(feature_ids, dtype=np.int32)


def _positions(frame: pl.DataFrame, feature_ids: Sequence[int], table: str) -> np.ndarray:
    """For each row of a frame, where its feature stands in `feature_ids`."""
    found = frame["feature_id"].cast(pl.Int64).to_numpy()
    ids = _ids(feature_ids, len(feature_ids)).astype(np.int64)
    order = np.argsort(ids)
    place = np.searchsorted(ids[order], found).clip(max=max(len(ids) - 1, 0))
    known = ids[order][place] == found if len(ids) else np.zeros(len(found), dtype=bool)
    if not known.all():
        raise ValueError(
            f"{table}: feature_id {found[~known].max()} found; expected one of the fit's "
            f"{len(ids)} features: the rows belong to another site or fit"
        )
    return order[place]


def _check_bound(frame: pl.DataFrame, column: str, size: int, table: str) -> None:
    found = frame[column].max()
    if isinstance(found, int) and found >= size:
        raise ValueError(
            f"{table}: {column} {found} found; expected below {size}: the rows belong to "
            "another site or fit"
        )
