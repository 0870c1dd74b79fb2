"""Documents of a feature's concept and of other concepts, where the corpus names concepts.

A feature's concept is detection's (corpus_concepts.py): the same function of the same cosines,
chosen on one half of the study's documents, so that it is the one of `concept_detection`. It is
read from no table of that stage, since those wait for an LLM. The feature is then ablated in
documents of the other half, drawn in hash order whether it fires in them or not: some of the
concept, and beside them some of all others. What its ablation does in the former means something
only against the latter. Supervised fits see the first half only. Nothing here asks an LLM.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float

from assets.corpus.halves import split_in_halves
from assets.detection.config import DetectionConfig
from assets.detection.corpus_concepts import corpus_concept_rows, takes_part
from assets.shared.hash_order import text_hashes


@dataclass(frozen=True)
class ConceptDocuments:
    """Ids of documents of a concept, and of documents that are not of it."""

    of_concept: tuple[str, ...] = ()
    of_others: tuple[str, ...] = ()


def detected_concepts(
    scores: Float[np.ndarray, "n_documents k"],
    documents: pl.DataFrame,
    feature_ids: Sequence[int],
    detection: DetectionConfig,
) -> dict[int, str]:
    """The concept of each feature that has one, as `concept_detection` names it.

    `scores` are max_cosine_scores of `documents`, which are all of the study's, with document_id,
    minhash and concept.
    """
    rows = corpus_concept_rows(
        scores,
        documents["minhash"].to_list(),
        documents["concept"].to_list(),
        detection,
        feature_ids=feature_ids,
    )
    return dict(rows.select("feature_id", "concept").drop_nulls().iter_rows())


def documents_of_concepts(
    wanted: Collection[str],
    usable: Collection[str],
    documents: pl.DataFrame,
    n_of_concept: int,
    n_of_others: int,
    detection: DetectionConfig,
    seed: int,
) -> dict[str, ConceptDocuments]:
    """At most so many documents of each of the `wanted` concepts, and of others.

    `documents` as above; those that are not `usable` take part in the split only. A document
    without a concept is one of the others where it is a negative of detection. `seed` draws, in one
    order for all concepts, so that many share their documents.
    """
    concepts = documents["concept"].to_list()
    chooses = split_in_halves(documents["minhash"].to_list(), concepts, detection.seed)
    measures = documents.filter(takes_part(concepts, detection) & ~chooses)
    concept_of = dict(measures.select("document_id", "concept").iter_rows())
    ids = sorted(concept_of.keys() & set(usable))
    order = np.argsort(text_hashes(ids, seed, "ablation concept"), kind="stable").tolist()
    drawn = [ids[i] for i in order]
    return {
        concept: ConceptDocuments(
            tuple([i for i in drawn if concept_of[i] == concept][:n_of_concept]),
            tuple([i for i in drawn if concept_of[i] != concept][:n_of_others]),
        )
        for concept in wanted
    }
