"""Faithfulness on SmolLM2-135M: the scale's ends are exact, and a real dictionary lies between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from assets.activations.capture import capture_rows
from assets.activations.sites import ActivationSite
from assets.activations.statistics import massive_rows, token_frame
from assets.activations.tokenization import special_prefix, token_pieces, tokenize_documents
from assets.corpus.bundled_corpus import read_bundled_rows
from assets.factorization.config import FitConfig
from assets.factorization.methods import factorize
from assets.faithfulness.config import FaithfulnessConfig
from assets.faithfulness.fit import Fit
from assets.faithfulness.measure import Measured, measure_faithfulness
from assets.faithfulness.replaced_forward import Spent
from assets.faithfulness.sample import SampledDocument, sample_documents
from assets.faithfulness.tables import FAITHFULNESS_DOCUMENTS
from resources.subject_model import load_subject_model
from tests.faithfulness.planted import coefficients_frame

SITE = ActivationSite(20)
CONFIG = FaithfulnessConfig(n_documents=12, n_documents_per_feature=2)


@pytest.mark.slow
def test_faithfulness_of_a_real_model(cache_folder: Path) -> None:
    subject = load_subject_model("smollm2-135m-instruct", cache_folder=cache_folder / "models")
    texts = [(str(i), row.text) for i, row in enumerate(read_bundled_rows()[:96])]
    documents = tokenize_documents(subject.tokenizer, texts, 48)
    rows = capture_rows(subject.model, documents, SITE)
    norms = rows.norm(dim=1)
    is_massive = massive_rows(norms, 5.0)
    pieces = token_pieces(subject.tokenizer, {t for d in documents for t in d.token_ids})
    tokens = token_frame(documents, pieces, norms, is_massive)
    sample = sample_documents(tokens, special_prefix(subject.tokenizer), 12, seed=0)
    recovered = {}
    for config in (
        FitConfig(method="snmf", rank=24, keep_fraction=0.02, max_iter=40),
        FitConfig(method="random", rank=24, keep_fraction=0.02),
    ):
        fitted = factorize(rows, config, is_massive=is_massive)
        ids = [5 * i for i in range(fitted.n_features)]
        fit = Fit(
            ids,
            fitted.dictionary,
            coefficients_frame(fitted.coefficients, ids),
            fitted.offset,
            rows[~is_massive].mean(dim=0),
        )
        measured = measure_faithfulness(subject.model, SITE, sample, fit, ids[:6], CONFIG)
        by_name = {row["replacement"]: row for row in measured.replacements.to_dicts()}
        assert by_name["identity"]["recovered"] == 1.0
        assert by_name["zero"]["recovered"] == 0.0
        assert by_name["identity"]["kl_nats"] == 0.0
        assert by_name["reconstruction"]["kl_nats"] > 0 and by_name["zero"]["kl_nats"] > 0.02
        recovered[config.method] = by_name["reconstruction_keep_massive"]["recovered"]
        features = measured.features
        _check_second_run(subject.model, sample, fit, ids, measured)
        _check_one_document_more(subject.model, tokens, special_prefix(subject.tokenizer), fit, ids)
        assert features["feature_id"].to_list() == ids
        ok = features.filter(status="ok")
        assert len(ok) >= 1 and ok["delta_cross_entropy"].is_finite().all()
        assert features.filter(pl.col("status") != "ok")["reason"].null_count() == 0
    assert torch.isfinite(torch.tensor(list(recovered.values()))).all()
    assert recovered["snmf"] > recovered["random"]
    assert recovered["snmf"] < 1.0


def _check_second_run(
    model: Any, sample: list[SampledDocument], fit: Fit, ids: list[int], first: Measured
) -> None:
    """The same again runs nothing; two features more run only for themselves."""
    partition = {"site": "study:m@L20.mlp_hidden", "fit": "f"}
    previous = FAITHFULNESS_DOCUMENTS.conform(first.documents, partition)
    again = measure_faithfulness(model, SITE, sample, fit, ids[:6], CONFIG, previous=previous)
    for name in ("documents", "replacements", "features"):
        assert getattr(again, name).equals(getattr(first, name)), name
    assert again.work.spent == Spent() and again.work.rows_computed == 0
    more = measure_faithfulness(model, SITE, sample, fit, ids[:8], CONFIG, previous=previous)
    assert more.replacements.equals(first.replacements)
    assert more.work.rows_computed <= 2 * CONFIG.n_documents_per_feature
    measured_before = first.features.filter(status="ok")["feature_id"].implode()
    kept = more.features.filter(pl.col("feature_id").is_in(measured_before))
    assert kept.equals(first.features.filter(status="ok"))


def _check_one_document_more(
    model: Any, tokens: pl.DataFrame, prefix: tuple[int, ...], fit: Fit, ids: list[int]
) -> None:
    """What was run before and what is run anew is what all of it in one run is, to the bit."""
    sample = sample_documents(tokens, prefix, 12, seed=0)
    entered = sample[3].document.document_id
    without = tokens.filter(pl.col("document_id") != entered)
    before = measure_faithfulness(
        model, SITE, sample_documents(without, prefix, 12, seed=0), fit, ids[:6], CONFIG
    )
    previous = FAITHFULNESS_DOCUMENTS.conform(before.documents, {"site": "s", "fit": "f"})
    after = measure_faithfulness(model, SITE, sample, fit, ids[:6], CONFIG, previous=previous)
    scratch = measure_faithfulness(model, SITE, sample, fit, ids[:6], CONFIG)
    for name in ("documents", "replacements", "features"):
        assert getattr(after, name).equals(getattr(scratch, name)), name
    assert 0 < after.work.spent.forward_tokens < scratch.work.spent.forward_tokens / 2
