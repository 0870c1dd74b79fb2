"""Which of the corpus's own concepts a feature fires on, measured on documents not used to choose.

The documents are split in two halves (corpus/halves.py), stratified by concept. On the first the
feature's concept is the one with the highest AUROC; the AUROC reported is that concept's on the
second half. Choosing and measuring on the same documents would report the luckiest of many
concepts: for scores that mean nothing, well above 0.5 instead of 0.5.

A document without a concept is of an unknown theme, perhaps the very concept that a feature fires
on; as a negative it would lower the AUROC of a good feature. So it is compared with nothing, unless
the study says that such documents are background (detection.documents_without_concept).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from assets.corpus.halves import split_in_halves
from assets.detection.concept_statistics import auroc_matrix, concept_statistics
from assets.detection.config import DetectionConfig
from assets.detection.result_rows import (
    CONCEPT_DETECTION_SCHEMA,
    empty_row,
    mean_lengths,
    statistics_row,
)

# A concept needs this many documents in each half, or its AUROC says nothing.
FEWEST_PER_HALF = 2
SOURCE = "corpus"


def corpus_concept_rows(
    scores: Float[np.ndarray, "n_documents k"],
    minhashes: Sequence[str | None],
    concepts: Sequence[str | None],
    config: DetectionConfig,
    feature_ids: Sequence[int] | None = None,
    n_tokens: Int[np.ndarray, " n_documents"] | None = None,
) -> pl.DataFrame:
    """Rows of `concept_detection` with source corpus, one a feature (column of `scores`).

    `scores` are max_cosine_scores of the documents, NaN where there is none; `minhashes`,
    `concepts` (None where unknown) and `n_tokens`, which gives the mean lengths, are theirs. A
    corpus without concepts gives rows with status not_applicable.
    """
    n_documents, k = scores.shape
    if len(concepts) != n_documents:
        raise ValueError(f"{n_documents} rows of scores with {len(concepts)} concepts")
    ids = list(range(k)) if feature_ids is None else list(feature_ids)
    if not any(concepts):
        reason = "the corpus's documents name no concepts"
        return _without_concepts(ids, "not_applicable", reason)
    # A document without tokens scores NaN for every feature, a zero feature for every document.
    is_finite = np.isfinite(scores)
    has_score = np.asarray(is_finite.any(axis=1))
    is_live = np.asarray(is_finite[has_score].all(axis=0)) & has_score.any()
    is_used = has_score & takes_part(concepts, config)
    used = [concept for concept, is_in in zip(concepts, is_used, strict=True) if is_in]
    # Of all documents, so that it is the half that supervised fits were made on.
    choose_half = split_in_halves(minhashes, concepts, config.seed)[is_used]
    names, membership = concept_membership(used, choose_half)
    if not names and has_score.any():
        reason = (
            f"no concept has {2 * FEWEST_PER_HALF} documents or more beside documents of another: "
            "half of a concept's documents choose it, half measure it"
        )
        if is_used.sum() < has_score.sum():
            reason += (
                f"; {has_score.sum() - is_used.sum()} documents without a concept are left out: if "
                "they are background texts, set detection.documents_without_concept to negatives"
            )
        return _without_concepts(ids, "not_applicable", reason)

    live_scores = scores[is_used][:, is_live]
    chosen = np.zeros(live_scores.shape[1], dtype=int)
    if live_scores.size:
        chosen = auroc_matrix(live_scores[choose_half], membership[choose_half]).argmax(axis=1)
    measured_scores, measured = live_scores[~choose_half], membership[~choose_half]
    measured_tokens = None if n_tokens is None else n_tokens[is_used][~choose_half]
    rows = []
    live_position = np.cumsum(is_live) - 1
    for column, feature_id in enumerate(ids):
        if not is_live[column]:
            reason = "the feature direction is zero, so it has no cosine with any activation"
            rows.append(empty_row(feature_id, SOURCE, "failed", reason))
            continue
        position = live_position[column]
        concept = int(chosen[position])
        of_concept = measured[:, concept]
        statistics = concept_statistics(
            measured_scores[of_concept, position],
            measured_scores[~of_concept, position],
            confidence=config.confidence,
            seed=config.seed,
        )
        row = statistics_row(feature_id, SOURCE, names[concept], statistics)
        if measured_tokens is not None:
            row |= mean_lengths(measured_tokens[of_concept], measured_tokens[~of_concept])
        rows.append(row)
    return pl.DataFrame(rows, schema=CONCEPT_DETECTION_SCHEMA)


def takes_part(
    concepts: Sequence[str | None], config: DetectionConfig
) -> Bool[np.ndarray, " n_documents"]:
    """Which documents are compared: those with a concept; others where they are background."""
    is_background = config.documents_without_concept == "negatives"
    return np.array([bool(concept) or is_background for concept in concepts], dtype=bool)


def concept_membership(
    concepts: Sequence[str | None], choose_half: Bool[np.ndarray, " n_documents"]
) -> tuple[list[str], Bool[np.ndarray, "n_documents c"]]:
    """Names of the concepts that both halves can tell of, and which document is of which.

    `concepts` are those of documents that take part; one of None is a negative of every concept.
    """
    of_concept = np.array(["" if concept is None else concept for concept in concepts], dtype=str)
    names: list[str] = []
    columns: list[np.ndarray] = []
    for name in sorted({concept for concept in concepts if concept}):
        column = of_concept == name
        halves = (column[choose_half], column[~choose_half])
        if all(FEWEST_PER_HALF <= half.sum() < len(half) for half in halves):
            names.append(name)
            columns.append(column)
    membership = np.stack(columns, axis=1) if columns else np.zeros((len(concepts), 0), dtype=bool)
    return names, membership


def _without_concepts(feature_ids: Sequence[int], status: str, reason: str) -> pl.DataFrame:
    rows = [empty_row(feature_id, SOURCE, status, reason) for feature_id in feature_ids]
    return pl.DataFrame(rows, schema=CONCEPT_DETECTION_SCHEMA)
