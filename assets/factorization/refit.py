"""What to do with a fit that may have been made before: reuse, project, go on from it, or start.

    nothing changed (same inputs_fingerprint)           reuse: no fit, nothing written
    on_new_tokens: project, only the inputs changed     projected: the dictionary and ids stay
    warm_start, same settings, snmf or permuted         warm: the last dictionary is the start
    else                                                cold: from the seed

"Same settings" means those that decide what the dictionary can be: width, number of features and
what `factorizations` records of method, sparsity, penalty, scaling, solver, init and seed. A warm
fit depends on the fits before it; the column started_from_snapshot leads from one to the next, and
`warm_start: false` gives fits without history.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import polars as pl
from jaxtyping import Float
from torch import Tensor

from assets.factorization.comparison_tables import FEATURE_STABILITY, RANK_CHOICES
from assets.factorization.config import FitConfig
from assets.factorization.frames import Start, dictionary_matrix, feature_ids_of, settings_of
from assets.factorization.identity import PreviousFeatures
from assets.factorization.tables import DICTIONARY, FACTORIZATIONS
from assets.shared.schema import Table

WARM_METHODS = ("snmf", "permuted")
# Between the two halves of an inputs_fingerprint: code and settings, and the inputs.
SEPARATOR = ":"


@dataclass(frozen=True)
class PreviousFit:
    """The last fit of a site and fit that succeeded, as the lake holds it."""

    row: dict[str, Any]
    features: PreviousFeatures
    rank_choices: pl.DataFrame
    feature_stability: pl.DataFrame

    # Tables that the fit is read back from.
    TABLES: ClassVar[tuple[Table, ...]] = (
        FACTORIZATIONS,
        DICTIONARY,
        RANK_CHOICES,
        FEATURE_STABILITY,
    )

    @property
    def inputs_fingerprint(self) -> str | None:
        return self.row["inputs_fingerprint"]


@dataclass(frozen=True)
class Refit:
    """How a fit starts; `dictionary` is None for a cold start."""

    start: Start
    dictionary: Float[Tensor, "k d"] | None = None
    snapshot: int | None = None


def previous_fit(frames: Mapping[Table, pl.DataFrame], snapshot: int | None) -> PreviousFit | None:
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
    )


def plan_refit(
    previous: PreviousFit | None, fit: FitConfig, settings: str, *, rank: int | None, width: int
) -> Refit:
    """How to start. `settings` is the first half of the inputs_fingerprint to be.

    `rank` is the number of features of the fit to be made; None where it is not known before, as
    with rank auto: then only a projection can be planned.
    """
    if previous is None or not _same_settings(previous.row, fit, rank, width):
        return Refit("cold")
    features = previous.features
    has_scale = previous.row["activation_scale"] is not None
    only_inputs_changed = (previous.inputs_fingerprint or "").startswith(settings + SEPARATOR)
    if fit.on_new_tokens == "project" and has_scale and only_inputs_changed:
        return Refit("projected", features.dictionary, features.snapshot)
    if fit.warm_start and fit.method in WARM_METHODS and rank is not None:
        return Refit("warm", features.dictionary, features.snapshot)
    return Refit("cold")


def _same_settings(row: dict[str, Any], fit: FitConfig, rank: int | None, width: int) -> bool:
    wanted = settings_of(fit, fit.seed)
    del wanted["rank"]
    return (
        row["width"] == width
        and (rank is None or row["n_features"] == rank)
        and all(row[name] == value for name, value in wanted.items())
    )
