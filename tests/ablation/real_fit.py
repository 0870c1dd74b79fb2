"""A fit of SmolLM2's neurons over the bundled sentences, with all that its ablation needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import torch

from assets.ablation.concept_documents import detected_concepts
from assets.ablation.config import AblationConfig
from assets.ablation.measure import Measured, measure_ablations
from assets.activations.capture import capture_rows
from assets.activations.sites import ActivationSite
from assets.activations.statistics import massive_rows, token_frame
from assets.activations.tokenization import special_prefix, token_pieces, tokenize_documents
from assets.corpus.bundled_corpus import read_bundled_rows
from assets.detection.config import DetectionConfig
from assets.detection.text_scores import max_cosine_scores
from assets.evidence.vocab_projection import project_vocabulary
from assets.factorization.config import FitConfig
from assets.factorization.methods import factorize
from assets.factorization.strength_order import strongest_features
from resources.subject_model import load_subject_model
from tests.faithfulness.planted import coefficients_frame


class RealFit:
    """An SNMF fit at one site; `ablate` measures its strongest features."""

    def __init__(self, cache_folder: Path, layer: int, n_documents: int, fit: FitConfig) -> None:
        self.subject = load_subject_model(
            "smollm2-135m-instruct", cache_folder=cache_folder / "models"
        )
        self.site = ActivationSite(layer)
        model, tokenizer = self.subject.model, self.subject.tokenizer
        texts = [(str(i), row.text) for i, row in enumerate(read_bundled_rows()[:n_documents])]
        named = [(str(i), row.concept) for i, row in enumerate(read_bundled_rows()[:n_documents])]
        self.documents = pl.DataFrame(
            named, schema=["document_id", "concept"], orient="row"
        ).with_columns(minhash="document_id")
        documents = tokenize_documents(tokenizer, texts, 64)
        rows = capture_rows(model, documents, self.site)
        norms = rows.norm(dim=1)
        is_massive = massive_rows(norms, 5.0)
        pieces = token_pieces(tokenizer, {t for d in documents for t in d.token_ids})
        self.tokens = token_frame(documents, pieces, norms, is_massive)
        self.prefix = special_prefix(tokenizer)
        fitted = factorize(rows, fit, is_massive=is_massive)
        self.ids = list(range(fitted.n_features))
        self.dictionary = fitted.dictionary
        self.coefficients = coefficients_frame(fitted.coefficients, self.ids)
        number = torch.tensor([int(i) for i in self.tokens["document_id"]])
        scores = max_cosine_scores(
            [(rows[~is_massive], number[~is_massive])], fitted.dictionary, len(named)
        )
        self.concept_of = detected_concepts(scores, self.documents, self.ids, DetectionConfig())
        projection = project_vocabulary(
            model, tokenizer, self.site, fitted.dictionary, n_vocab=10, signs=("+",)
        )
        promoted = projection.group_by("feature_id", maintain_order=True).agg("token_id")
        self.promoted = dict(promoted.iter_rows())

    def ablate(
        self, n_features: int, config: AblationConfig, previous: pl.DataFrame | None = None
    ) -> Measured:
        settings: dict[str, Any] = {"firing_share": 0.2, "made_with": ("v",), "previous": previous}
        return measure_ablations(
            self.subject.model,
            self.site,
            feature_ids=self.ids,
            dictionary=self.dictionary,
            measured_ids=strongest_features(self.coefficients, n_features),
            coefficients=self.coefficients,
            tokens=self.tokens,
            special_prefix=self.prefix,
            promoted=self.promoted,
            study_documents=self.documents,
            concept_of=self.concept_of,
            config=config,
            **settings,
        )
