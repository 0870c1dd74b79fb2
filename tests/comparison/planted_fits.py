"""Fits with planted scores, and a site's frames of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from assets.comparison.fits import FEATURE_COLUMNS, ComparedFit
from assets.comparison.metrics import FEATURE_METRIC_NAMES

PARTITION = {"site": "toy:tiny@L00.mlp_hidden"}
SCHEMA = {
    "fit": pl.String(),
    "feature_id": pl.Int32(),
    "concept": pl.String(),
    "energy_share": pl.Float64(),
    **dict.fromkeys(FEATURE_METRIC_NAMES, pl.Float64()),
}

NO_ATTEMPTS = pl.DataFrame(
    schema={
        "fit": pl.String(),
        "metric": pl.String(),
        "n_attempted": pl.Int64(),
        "n_without_label": pl.Int64(),
    }
)
NOT_SHUFFLED = pl.DataFrame(
    schema={"fit": pl.String(), "feature_id": pl.Int32(), "auroc": pl.Float64()}
)


def features_of(
    fit: str,
    scores: Sequence[float | None] | np.ndarray,
    *,
    concepts: Sequence[str | None] | None = None,
    metric: str = "concept_auroc",
) -> pl.DataFrame:
    """Features 0, 1, … of falling strength with these values of one metric, and none of others."""
    n = len(scores)
    made = pl.DataFrame(
        {
            "fit": [fit] * n,
            "feature_id": list(range(n)),
            "concept": [None] * n if concepts is None else list(concepts),
            "energy_share": [2.0**-i for i in range(n)],
            metric: [None if score is None else float(score) for score in scores],
        }
    )
    missing = [pl.lit(None).alias(name) for name in SCHEMA if name not in made.columns]
    return made.with_columns(missing).select(
        pl.col(name).cast(SCHEMA[name]) for name in FEATURE_COLUMNS
    )


def planted_fit(
    key: str,
    scores: Sequence[float | None] | np.ndarray,
    *,
    is_control: bool = False,
    concepts: Sequence[str | None] | None = None,
    metric: str = "concept_auroc",
) -> ComparedFit:
    """A fit whose features have these values, strongest first."""
    features = features_of(key, scores, concepts=concepts, metric=metric)
    return ComparedFit(key, key.split("-")[0], is_control, features)
