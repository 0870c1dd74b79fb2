"""Where a feature is ablated: documents with strong tokens, and documents drawn from all.

A token is strong where the coefficient is `strong_share` of the feature's largest or more: that is
on target. Every other token is off target, whether the feature fires there less or not at all.
Massive tokens count nowhere: fits leave them out, and so do ablations.

Documents are drawn in hash order (shared/hash_order.py) over the whole corpus: those on target
among those with a strong token, in an order of the feature's own; those off target among all, in
one order, so that they are the same ones for every feature. A feature that works wherever it fires,
and everywhere a little, thus shows. Those of the feature's concept and of others are
concept_documents.py's. The mean coefficient is kept to two significant digits: a document more then
rarely moves what is put in.

What is put in at a document is plan.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from assets.ablation.concept_documents import ConceptDocuments, documents_of_concepts
from assets.ablation.config import AblationConfig
from assets.detection.config import DetectionConfig
from assets.shared.hash_order import mixed, text_hashes


@dataclass(frozen=True)
class Targets:
    """A feature's largest and mean coefficient over the corpus, and ids of documents drawn."""

    largest: float
    mean: float
    on: tuple[str, ...]
    off: tuple[str, ...]
    of_concept: tuple[str, ...] = ()
    of_others: tuple[str, ...] = ()

    @property
    def documents(self) -> tuple[str, ...]:
        """All of them once; none for a feature without strong tokens."""
        every = (*self.on, *self.off, *self.of_concept, *self.of_others)
        return tuple(dict.fromkeys(every)) if self.on else ()


def choose_targets(
    coefficients: pl.DataFrame,
    tokens: pl.DataFrame,
    feature_ids: Sequence[int],
    config: AblationConfig,
    documents: pl.DataFrame | None = None,
    concept_of: Mapping[int, str] | None = None,
    detection: DetectionConfig | None = None,
) -> dict[int, Targets]:
    """The targets of each of `feature_ids`; without `on` where it has no strong token to predict
    from.

    `coefficients` has the columns row, feature_id and coefficient; `tokens` row, document_id,
    position and is_massive; `documents` has document_id, minhash and concept of all the
    study's, halved as `detection` says; `concept_of` gives those of the features that have one.
    """
    eligible = tokens.select(
        pl.col("row").cast(pl.Int64),
        "document_id",
        "is_massive",
        is_predicted=pl.col("position") < pl.col("position").max().over("document_id"),
    ).filter(~pl.col("is_massive"))
    usable = eligible.filter("is_predicted")["document_id"].unique().sort()
    hashes = text_hashes(usable, config.seed, "ablation on")
    shared_order = np.argsort(text_hashes(usable, config.seed, "ablation off"), kind="stable")
    off = tuple(usable[i] for i in shared_order[: config.n_documents_off].tolist())
    place = {document_id: i for i, document_id in enumerate(usable)}
    active = (
        coefficients.filter(
            pl.col("coefficient") > 0, pl.col("feature_id").is_in(list(feature_ids))
        )
        .with_columns(pl.col("row").cast(pl.Int64), pl.col("coefficient").cast(pl.Float64))
        # In order: a sum depends on it in its last digit.
        .join(eligible, on="row", maintain_order="left")
        .partition_by("feature_id", as_dict=True)
    )
    concept_of = concept_of or {}
    of_concepts = {}
    if documents is not None and concept_of:
        of_concepts = documents_of_concepts(
            sorted(set(concept_of.values())),
            usable.to_list(),
            documents,
            config.n_documents_concept,
            config.n_of_others,
            detection or DetectionConfig(),
            config.seed,
        )
    found = {}
    for feature_id in feature_ids:
        own = active.get((feature_id,))
        if own is None:
            found[feature_id] = Targets(0.0, 0.0, (), ())
            continue
        values = own["coefficient"].to_numpy()
        largest = float(values.max())
        strong = own.filter("is_predicted", pl.col("coefficient") >= config.strong_share * largest)
        on = np.array(sorted({place[i] for i in strong["document_id"]}), dtype=np.int64)
        on = on[np.argsort(mixed(hashes[on], feature_id), kind="stable")]
        drawn = of_concepts.get(concept_of.get(feature_id, ""), ConceptDocuments())
        found[feature_id] = Targets(
            largest=largest,
            mean=float(f"{values.sum() / len(eligible):.1e}"),
            on=tuple(usable[i] for i in on[: config.n_documents_on].tolist()),
            off=off,
            of_concept=drawn.of_concept,
            of_others=drawn.of_others,
        )
    return found
