"""Encoders give tokens the coefficients that the fit gave them, and come back from the lake."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from factorization.changing_documents import PARTITION, SETTINGS, Corpus, fit_of, stored

from assets.factorization.encoder import Encoder, encoder_frame, encoder_of
from assets.factorization.fit_source import MatrixSource
from assets.factorization.fitting import make_fit
from assets.factorization.inputs import FactorizationError
from assets.factorization.projection import KeptFit, project_tokens
from assets.factorization.tables import ENCODERS, FACTORIZATIONS

GENERATOR = torch.Generator().manual_seed(0)
TOKENS = torch.randn(50, 6, generator=GENERATOR)


def test_only_the_features_of_largest_potential_fire_and_none_below_zero() -> None:
    encoder = Encoder(
        torch.randn(5, 6, generator=GENERATOR), torch.randn(5, generator=GENERATOR), n_active=2
    )
    found = encoder.encode(TOKENS)
    for token, coefficients in zip(TOKENS, found, strict=True):
        latents = zip(encoder.weights, encoder.bias, strict=True)
        potentials = [float(weights @ token + bias) for weights, bias in latents]
        largest = sorted(range(5), key=lambda i: -potentials[i])[:2]
        expected = [max(0.0, p) if i in largest else 0.0 for i, p in enumerate(potentials)]
        assert coefficients.tolist() == pytest.approx(expected, abs=1e-5)


def test_with_half_the_squared_norms_the_largest_potential_is_the_nearest_centroid() -> None:
    centroids = torch.randn(4, 6, generator=GENERATOR)
    encoder = Encoder(centroids, -centroids.square().sum(dim=1) / 2, n_active=1, is_projection=True)
    found = encoder.encode(TOKENS)
    nearest = torch.cdist(TOKENS, centroids).argmin(dim=1)
    lengths = (TOKENS * centroids[nearest]).sum(dim=1) / centroids[nearest].norm(dim=1)
    expected = torch.zeros_like(found)
    expected[torch.arange(len(TOKENS)), nearest] = lengths.clamp(min=0)
    assert torch.allclose(found, expected, atol=1e-5)


def test_rows_come_back_in_the_order_asked_for_and_others_are_none() -> None:
    encoder = Encoder(torch.randn(3, 6, generator=GENERATOR), torch.arange(3.0), n_active=2)
    rows = ENCODERS.conform(encoder_frame(encoder, [7, 2, 5]), PARTITION)
    back = encoder_of(rows.sort("feature_id"), [7, 2, 5])
    assert back is not None and (back.n_active, back.is_projection) == (2, False)
    assert torch.equal(back.weights, encoder.weights) and torch.equal(back.bias, encoder.bias)
    assert encoder_of(rows, [7, 2, 6]) is None and encoder_of(rows, [7, 2]) is None
    assert encoder_of(ENCODERS.empty(), [7, 2, 5]) is None
    assert encoder_frame(None, [7]).is_empty()


def test_a_transcoder_sees_that_what_it_reads_has_changed() -> None:
    """Of two documents the MLP's input is another, its output as it was."""
    fit, corpus = fit_of("transcoder"), Corpus(range(100))
    inputs = corpus.activations.flip(1)
    before = make_fit(
        MatrixSource(corpus.activations, corpus.inputs, inputs),
        fit,
        corpus.inputs,
        None,
        settings=SETTINGS,
    )
    other = inputs.clone()
    other[:16] *= 1.5
    now = replace(corpus.inputs, input_shards=["others"])
    source = MatrixSource(corpus.activations, now, other)
    made = make_fit(source, fit, now, stored(before), settings=SETTINGS)
    assert made.refit.start == "projected"
    # Two documents of eight tokens: gone as they were, and new as they are.
    assert made.frames[FACTORIZATIONS]["n_tokens_changed"].item() == 32
    assert "coefficients of 16 tokens solved" in made.factorization.stop_reason
    ours, theirs = made.factorization.coefficients, before.factorization.coefficients
    assert torch.equal(ours[16:], theirs[16:]) and not torch.allclose(ours[:16], theirs[:16])


def test_a_transcoder_is_not_projected_without_what_it_reads() -> None:
    encoder = Encoder(torch.ones(4, 6), torch.zeros(4), n_active=2)
    kept = KeptFit(torch.ones(4, 6), encoder=encoder)
    for inputs, found in ((None, "found none"), (TOKENS[:3], "found 3 rows")):
        with pytest.raises(FactorizationError, match=found):
            project_tokens(TOKENS, fit_of("transcoder", rank=4), kept, input_activations=inputs)
