"""What to do with a fit that may have been made before: reuse, project, go on from it, or start.

    nothing changed (same inputs_fingerprint)             reuse: no fit, nothing written
    only the inputs changed, and little (refit_share)     projected: the dictionary and ids stay
    warm_start, same settings, snmf or permuted           warm: the last dictionary is the start
    else                                                  cold: from the seed

`on_new_tokens` says whether the second line holds for a little change (auto), any (project) or
none (refit). How much changed is counted against the documents that the dictionary was fitted on
(fit_documents.py), so small changes add up to a refit.

"Same settings" means those that decide what the dictionary can be: width, number of features and
what `factorizations` records of method, sparsity, penalty, scaling, solver, init and seed. A warm
fit depends on the fits before it, and so does a projection; the column started_from_snapshot leads
from one to the next, and `warm_start: false` gives fits without history.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from scipy.sparse import csr_matrix
from torch import Tensor

from assets.factorization.comparison_tables import FEATURE_STABILITY, FIT_DOCUMENTS, RANK_CHOICES
from assets.factorization.config import FitConfig
from assets.factorization.encoder import Encoder, encoder_of
from assets.factorization.fit_documents import FitChange, same_rows
from assets.factorization.frames import (
    Start,
    coefficient_matrix,
    dictionary_matrix,
    feature_ids_of,
    settings_of,
)
from assets.factorization.identity import PreviousFeatures
from assets.factorization.method_traits import ENCODED_METHODS
from assets.factorization.projection import KeptFit, KnownCoefficients
from assets.factorization.tables import DICTIONARY, ENCODERS, FACTORIZATIONS
from assets.shared.schema import Table

WARM_METHODS = ("snmf", "permuted")
# Between the two halves of an inputs_fingerprint: code and settings, and the inputs.
SEPARATOR = ":"


@dataclass(frozen=True)
class PreviousFit:
    """The last fit of a site and fit that succeeded, as the lake holds it.

    `read_coefficients` gives its rows of `coefficients`, which only a projection needs.
    """

    row: dict[str, Any]
    features: PreviousFeatures
    rank_choices: pl.DataFrame
    feature_stability: pl.DataFrame
    documents: pl.DataFrame
    encoder: Encoder | None
    read_coefficients: Callable[[], pl.DataFrame]

    # Tables that the fit is read back from.
    TABLES: ClassVar[tuple[Table, ...]] = (
        FACTORIZATIONS,
        DICTIONARY,
        RANK_CHOICES,
        FEATURE_STABILITY,
        FIT_DOCUMENTS,
        ENCODERS,
    )

    @property
    def inputs_fingerprint(self) -> str | None:
        return self.row["inputs_fingerprint"]


@dataclass(frozen=True)
class Refit:
    """How a fit starts and why; `dictionary` is None for a cold start."""

    start: Start
    reason: str
    dictionary: Float[Tensor, "k d"] | None = None
    snapshot: int | None = None


def previous_fit(
    frames: Mapping[Table, pl.DataFrame],
    snapshot: int | None,
    read_coefficients: Callable[[], pl.DataFrame],
) -> PreviousFit | None:
    """The fit in the rows of one site and fit, by table; None where no fit succeeded."""
    factorizations, dictionary = frames[FACTORIZATIONS], frames[DICTIONARY]
    ok = factorizations.filter(pl.col("status") == "ok")
    if ok.is_empty():
        return None
    row = ok.row(0, named=True)
    ids = feature_ids_of(row)
    next_id = row["next_feature_id"]
    return PreviousFit(
        row,
        PreviousFeatures(
            dictionary=dictionary_matrix(dictionary, ids, row["width"]),
            feature_ids=ids,
            next_feature_id=max(ids, default=-1) + 1 if next_id is None else next_id,
            names=row["feature_names"],
            snapshot=snapshot,
        ),
        frames[RANK_CHOICES].drop(RANK_CHOICES.partition_by),
        frames[FEATURE_STABILITY].drop(FEATURE_STABILITY.partition_by),
        frames[FIT_DOCUMENTS].drop(FIT_DOCUMENTS.partition_by),
        encoder_of(frames[ENCODERS], ids),
        read_coefficients,
    )


def plan_refit(
    previous: PreviousFit | None,
    fit: FitConfig,
    settings: str,
    *,
    rank: int | None,
    width: int,
    change: FitChange | None = None,
) -> Refit:
    """How to start. `settings` is the first half of the inputs_fingerprint to be.

    `rank` is the number of features of the fit to be made; None where it is not known before, as
    with rank auto: then only a projection can be planned. `change` is what happened to the
    documents since the dictionary was fitted; without it nothing is projected.
    """
    if previous is None:
        return Refit("cold", "first fit")
    if not _same_settings(previous.row, fit, rank, width):
        return Refit("cold", "the settings or the number of neurons changed")
    features = previous.features
    obstacle = _obstacle(previous, fit, settings, change)
    if obstacle is None:
        assert change is not None  # _obstacle says that it is not known
        reason = f"{_counted(change)}: the dictionary stays"
        return Refit("projected", reason, features.dictionary, features.snapshot)
    if fit.warm_start and fit.method in WARM_METHODS and rank is not None:
        return Refit("warm", obstacle, features.dictionary, features.snapshot)
    return Refit("cold", obstacle)


def kept_fit(previous: PreviousFit, documents: pl.DataFrame, n_tokens: int) -> KeptFit:
    """What a projection keeps: the dictionary, and coefficients of documents that are as they were.

    `documents` are those of the site now (documents_seen), of `n_tokens` tokens in all.
    """
    row, features = previous.row, previous.features
    now, before = same_rows(previous.documents, documents)
    stored = coefficient_matrix(
        previous.read_coefficients(), row["n_tokens"], features.feature_ids
    )[before]
    lengths = np.zeros(n_tokens, dtype=np.int64)
    lengths[now] = np.diff(stored.indptr)
    is_known = np.zeros(n_tokens, dtype=bool)
    is_known[now] = True
    starts = np.concatenate([[0], np.cumsum(lengths)])
    shape = (n_tokens, len(features.feature_ids))
    offset = row["offset_vector"]
    return KeptFit(
        dictionary=features.dictionary,
        scale=row["activation_scale"],
        offset=None if offset is None else torch.tensor(offset, dtype=torch.float32),
        encoder=previous.encoder,
        feature_names=row["feature_names"],
        n_tokens_fit=row["n_tokens_fit"],
        was_converged=bool(row["is_converged"]),
        known=KnownCoefficients(csr_matrix((stored.data, stored.indices, starts), shape), is_known),
    )


def _obstacle(
    previous: PreviousFit, fit: FitConfig, settings: str, change: FitChange | None
) -> str | None:
    """Why the dictionary can't stay; None where it can."""
    if not (previous.inputs_fingerprint or "").startswith(settings + SEPARATOR):
        return "code or settings changed"
    if fit.path is not None:
        return "the tokens changed, and a public SAE's strongest latents are chosen anew"
    if fit.method in ENCODED_METHODS and previous.encoder is None:
        return "the encoder of the fit before is not recorded"
    if fit.on_new_tokens != "project" and not fit.projects_little_changes:
        return "the tokens changed"
    if change is None:
        return "what changed is not known"
    if change.obstacle is not None:
        return change.obstacle
    if fit.on_new_tokens == "auto" and change.share > fit.refit_share:
        return f"{_counted(change)}, more than refit_share {fit.refit_share:g}"
    return None


def _counted(change: FitChange) -> str:
    return (
        f"{change.n_changed} tokens changed since the dictionary was fitted on {change.n_fitted} "
        f"({change.share:.2%})"
    )


def _same_settings(row: dict[str, Any], fit: FitConfig, rank: int | None, width: int) -> bool:
    wanted = settings_of(fit, fit.seed)
    del wanted["rank"]
    return (
        row["width"] == width
        and (rank is None or row["n_features"] == rank)
        and all(row[name] == value for name, value in wanted.items())
    )
