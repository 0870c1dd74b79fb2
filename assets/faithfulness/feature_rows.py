"""Rows of `feature_faithfulness` from the runs of documents with a feature taken out.

Means are over predictions, pooled over a feature's documents: Σ_d δ_d / Σ_d n_d. The standard
error is that of a ratio with documents as the units (assets/shared/small_sample_intervals.py),
since the tokens of one are alike; one document has none.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import polars as pl
from jaxtyping import Float

from assets.faithfulness.ablation import ABLATION
from assets.faithfulness.tables import FEATURE_FAITHFULNESS
from assets.shared.small_sample_intervals import ratio_of

NOT_ACTIVE = "never active before a document's last token in the sample"
WORTHLESS = "no share: zeroing the site does not raise the cross-entropy of its documents"


def ratio_standard_error(
    sums: Float[np.ndarray, " n_documents"], counts: Float[np.ndarray, " n_documents"]
) -> float | None:
    """Standard error of Σ sums / Σ counts over documents; None for fewer than two."""
    return None if len(sums) < 2 else math.sqrt(ratio_of(sums, counts).variance)


def feature_frame(
    documents: pl.DataFrame,
    feature_ids: Sequence[int],
    is_measured: Collection[int],
    n_documents_active: Sequence[int],
    beyond: str,
    seed: int,
) -> pl.DataFrame:
    """Rows of `feature_faithfulness`, one a feature of the fit, without site and fit.

    `documents` are rows of `faithfulness_documents`. `feature_ids` and `n_documents_active`
    (documents of the sample in which it is active) follow the dictionary's rows; `is_measured` are
    the dictionary rows that were taken out, `beyond` is why others were not.
    """
    delta = (pl.col("cross_entropy_replaced") - pl.col("cross_entropy_base")).alias("delta")
    zero = documents.filter(replacement="zero").select("document_id", delta)
    worth_of = dict(zero.iter_rows())
    ablations = documents.filter(replacement=ABLATION).with_columns(delta)
    of_feature = ablations.partition_by("feature_id", as_dict=True, maintain_order=True)
    rows = []
    for feature, feature_id in enumerate(feature_ids):
        row = {
            "feature_id": feature_id,
            "n_documents_active": n_documents_active[feature],
            "n_documents": 0,
            "n_tokens_active": 0,
            "n_tokens": 0,
            "seed": seed,
        }
        if (feature_id,) in of_feature:
            row |= _measured(of_feature[(feature_id,)], worth_of)
        elif not n_documents_active[feature]:
            row |= {"status": "inactive", "reason": NOT_ACTIVE}
        else:
            assert feature not in is_measured, "an active feature was planned but not ablated"
            row |= {"status": "not_measured", "reason": beyond}
        rows.append(row)
    schema = {
        c.name: c.polars_type
        for c in FEATURE_FAITHFULNESS.columns
        if c.name not in FEATURE_FAITHFULNESS.partition_by
    }
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema)


def _measured(runs: pl.DataFrame, worth_of: Mapping[str, float]) -> dict[str, object]:
    """One feature's columns; `worth_of` is what zeroing the site adds to a document's losses."""
    deltas = runs["delta"].to_numpy()
    counts = runs["n_tokens"].cast(pl.Float64).to_numpy()
    n_active, n_tokens = int(runs["n_tokens_active"].sum()), int(runs["n_tokens"].sum())
    delta, at_active = float(deltas.sum()), float(runs["delta_at_active"].to_numpy().sum())
    n_elsewhere = n_tokens - n_active
    worth = sum(worth_of[document] for document in runs["document_id"])
    return {
        "n_documents": len(runs),
        "n_tokens_active": n_active,
        "n_tokens": n_tokens,
        "delta_cross_entropy": delta / n_tokens,
        "delta_standard_error": ratio_standard_error(deltas, counts),
        "delta_at_active": at_active / n_active,
        "delta_elsewhere": (delta - at_active) / n_elsewhere if n_elsewhere else None,
        "kl_nats": float(runs["kl_nats"].to_numpy().sum()) / n_tokens,
        "share_of_zero_ablation": delta / worth if worth > 0 else None,
        "status": "ok",
        "reason": None if worth > 0 else WORTHLESS,
    }
