"""Statistics as rows of `concept_detection`, the columns site and fit left to the caller."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Int

from assets.detection.concept_statistics import ConceptStatistics
from assets.detection.tables import CONCEPT_DETECTION

CONCEPT_DETECTION_SCHEMA = {
    column.name: column.polars_type
    for column in CONCEPT_DETECTION.columns
    if column.name not in CONCEPT_DETECTION.partition_by
}


def statistics_row(
    feature_id: int,
    source: str,
    concept: str | None,
    statistics: ConceptStatistics,
    *,
    more_reasons: tuple[str, ...] = (),
) -> dict[str, Any]:
    """A measured feature: ok, partial where a statistic is undefined, failed without AUROC.

    Its q-value comes when all features of the fit are there; label_kind and the texts' mean lengths
    from the caller, where there are any.
    """
    values = asdict(statistics)
    reasons = (*more_reasons, *values.pop("reasons"))
    status = "failed" if statistics.auroc is None else "partial" if reasons else "ok"
    return {
        "feature_id": feature_id,
        "source": source,
        "concept": concept,
        "label_kind": None,
        "mean_tokens_positive": None,
        "mean_tokens_negative": None,
        "p_value_texts": values.pop("p_value"),
        **values,
        "q_value_texts": None,
        "status": status,
        "reason": "; ".join(reasons) or None,
    }


def mean_lengths(
    positive: Int[np.ndarray, " n_positive"], negative: Int[np.ndarray, " n_negative"]
) -> dict[str, float | None]:
    """Columns of the mean number of tokens of a row's texts; None of no text."""
    means = (float(np.mean(n)) if len(n) else None for n in (positive, negative))
    return dict(zip(("mean_tokens_positive", "mean_tokens_negative"), means, strict=True))


def empty_row(
    feature_id: int, source: str, status: str, reason: str, concept: str | None = None
) -> dict[str, Any]:
    """A feature that was not measured, and why."""
    row: dict[str, Any] = dict.fromkeys(CONCEPT_DETECTION_SCHEMA)
    return row | {
        "feature_id": feature_id,
        "source": source,
        "concept": concept,
        "status": status,
        "reason": reason,
    }
