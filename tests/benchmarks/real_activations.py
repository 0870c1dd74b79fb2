"""Real activations for benchmarks: two models, three layers each, two corpora without overlap.

The bundled corpus is cut in two by concept: settings are chosen on one half (`tuning`) and figures
are taken on the other (`report`), so that nothing reported was tuned on.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import torch
from torch import Tensor

from assets.activations.capture import capture_rows
from assets.activations.config import ActivationsConfig
from assets.activations.sites import ActivationSite
from assets.activations.statistics import massive_rows
from assets.activations.tokenization import tokenize_documents
from assets.corpus.bundled_corpus import BUNDLED_CONCEPTS
from assets.factorization.metrics import best_auroc, explained_variance
from resources.subject_model import load_subject_model

Corpus = Literal["tuning", "report"]
LAYERS = {"smollm2-135m-instruct": (5, 15, 25), "gemma3-270m": (4, 9, 14)}
MAX_TOKENS = 64
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "models"


@dataclass(frozen=True)
class RealSite:
    """One site's rows (massive tokens left out) with the concept of each token's document."""

    model: str
    layer: int
    activations: Tensor
    document_index: Tensor
    concepts: list[str]

    @property
    def name(self) -> str:
        return f"{self.model} L{self.layer}"

    def errors(self, coefficients: Tensor) -> np.ndarray:
        """1 - AUROC of each concept's best feature, max-pooled over a document, by concept."""
        best = best_auroc(coefficients, self.document_index, self.concepts)
        return 1 - best.sort("concept")["auroc"].to_numpy()

    def explained(self, coefficients: Tensor, dictionary: Tensor) -> float:
        value = explained_variance(self.activations, coefficients, dictionary).uncentred
        assert value is not None
        return value


@functools.cache
def real_sites(corpus: Corpus) -> tuple[RealSite, ...]:
    """The six sites' mlp_hidden rows for one half of the bundled corpus.

    FEATURELAKE_BENCH_MODEL names one of the models to take its three alone.
    """
    documents = pl.read_ndjson(BUNDLED_CONCEPTS)
    concepts = sorted(documents["concept"].unique().to_list())
    used = concepts[0 if corpus == "tuning" else 1 :: 2]
    documents = documents.filter(pl.col("concept").is_in(used))
    texts = [(str(i), text) for i, text in enumerate(documents["text"])]
    sites = []
    chosen = os.environ.get("FEATURELAKE_BENCH_MODEL")
    for model, layers in LAYERS.items():
        if chosen not in (None, model):
            continue
        subject = load_subject_model(model, cache_folder=CACHE)
        tokenized = tokenize_documents(subject.tokenizer, texts, MAX_TOKENS)
        index = torch.repeat_interleave(
            torch.arange(len(texts)), torch.tensor([d.n_rows for d in tokenized])
        )
        for layer in layers:
            rows = capture_rows(subject.model, tokenized, ActivationSite(layer)).float()
            kept = ~massive_rows(rows.norm(dim=1), ActivationsConfig().massive_norm_ratio)
            sites.append(
                RealSite(model, layer, rows[kept], index[kept], documents["concept"].to_list())
            )
    return tuple(sites)
