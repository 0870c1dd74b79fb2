"""Ablations of a fit's features as rows of `feature_faithfulness`.

Means are over predictions, pooled over a feature's documents: Σ_d δ_d / Σ_d n_d. The standard
error takes documents as the units (the linearised variance of a ratio; Cochran 1977, "Sampling
Techniques", section 6.4), since the tokens of one are alike; one document has none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from assets.faithfulness.ablation import Ablation
from assets.faithfulness.tables import FEATURE_FAITHFULNESS

NOT_ACTIVE = "never active before a document's last token in the sample"
OF_THIS_RUN = ("feature_id", "n_documents_active", "seed")
"""Columns that follow from the sample and the fit's ids, whatever the row was taken over from."""
WORTHLESS = "no share: zeroing the site does not raise the cross-entropy of its documents"


def ratio_standard_error(
    sums: Float[np.ndarray, " n_documents"], counts: Float[np.ndarray, " n_documents"]
) -> float | None:
    """Standard error of Σ sums / Σ counts over documents; None for fewer than two."""
    n = len(sums)
    if n < 2:
        return None
    residuals = sums - sums.sum() / counts.sum() * counts
    return float(np.sqrt(n / (n - 1) * np.square(residuals).sum()) / counts.sum())


def feature_frame(
    ablations: Sequence[Ablation],
    feature_ids: Sequence[int],
    is_measured: Collection[int],
    n_documents_active: Sequence[int],
    limit: int | None,
    seed: int,
    *,
    fingerprints: Mapping[int, str],
    reused: Mapping[int, Mapping[str, Any]],
) -> pl.DataFrame:
    """Rows of `feature_faithfulness`, one a feature of the fit, without site and fit.

    `feature_ids` and `n_documents_active` (documents of the sample in which it is active) follow
    the dictionary's rows; `is_measured` are the dictionary rows within `limit` (the study's
    max_features), the strongest. `fingerprints` are those of the features that have ablations;
    `reused` maps the dictionary rows that were not run again to the rows that stand for them.
    """
    by_feature: dict[int, list[Ablation]] = {}
    for ablation in ablations:
        by_feature.setdefault(ablation.feature, []).append(ablation)
    rows = []
    for feature, feature_id in enumerate(feature_ids):
        row = {
            "feature_id": feature_id,
            "n_documents_active": n_documents_active[feature],
            "n_documents": 0,
            "n_tokens_active": 0,
            "n_tokens": 0,
            "seed": seed,
            "row_fingerprint": fingerprints.get(feature),
        }
        if feature in by_feature:
            row |= _measured(by_feature[feature])
        elif feature in reused:
            old = reused[feature]
            row |= {name: value for name, value in old.items() if name not in OF_THIS_RUN}
        elif not n_documents_active[feature]:
            row |= {"status": "inactive", "reason": NOT_ACTIVE}
        else:
            assert feature not in is_measured, "an active feature was planned but not ablated"
            row |= {
                "status": "not_measured",
                "reason": f"beyond faithfulness.max_features={limit}, strongest first",
            }
        rows.append(row)
    schema = {
        c.name: c.polars_type
        for c in FEATURE_FAITHFULNESS.columns
        if c.name not in FEATURE_FAITHFULNESS.partition_by
    }
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema)


def _measured(ablations: Sequence[Ablation]) -> dict[str, object]:
    active = np.array([a.n_active for a in ablations], dtype=np.float64)
    elsewhere = np.array([a.n_elsewhere for a in ablations], dtype=np.float64)
    deltas = np.array([a.delta_active + a.delta_elsewhere for a in ablations])
    counts = active + elsewhere
    worth = sum(a.zero_delta for a in ablations)
    return {
        "n_documents": len(ablations),
        "n_tokens_active": int(active.sum()),
        "n_tokens": int(counts.sum()),
        "delta_cross_entropy": float(deltas.sum() / counts.sum()),
        "delta_standard_error": ratio_standard_error(deltas, counts),
        "delta_at_active": sum(a.delta_active for a in ablations) / float(active.sum()),
        "delta_elsewhere": (
            sum(a.delta_elsewhere for a in ablations) / float(elsewhere.sum())
            if elsewhere.any()
            else None
        ),
        "kl_nats": sum(a.kl for a in ablations) / float(counts.sum()),
        "share_of_zero_ablation": float(deltas.sum()) / worth if worth > 0 else None,
        "status": "ok",
        "reason": None if worth > 0 else WORTHLESS,
    }
