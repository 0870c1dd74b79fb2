"""The TopK trainer on planted sparse codes: what it recovers, and what its report claims."""

from __future__ import annotations

import pytest
import torch

from assets.factorization.config import FitConfig
from assets.factorization.inputs import FactorizationError
from assets.factorization.methods import factorize
from assets.factorization.metrics import match_features
from assets.factorization.topk_training import TopKSettings, has_plateaued, train_topk

WIDTH, RANK, ACTIVE = 60, 24, 3


def planted(n_tokens=3000, seed=0, noise=0.02):
    """Tokens of a few planted unit directions each, about a mean that is not zero."""
    # Away from the trainer's own seeds, or it would start at the planted directions.
    generator = torch.Generator().manual_seed(seed + 1000)
    directions = torch.nn.functional.normalize(torch.randn(RANK, WIDTH, generator=generator), dim=1)
    is_active = torch.rand(n_tokens, RANK, generator=generator) < ACTIVE / RANK
    codes = is_active * (0.5 + torch.rand(n_tokens, RANK, generator=generator))
    mean = torch.nn.functional.normalize(torch.randn(WIDTH, generator=generator), dim=0)
    rows = codes @ directions + mean
    return 10 * (rows + noise * torch.randn(rows.shape, generator=generator)), directions, codes


def rare_directions(n_tokens, n_directions):
    """Tokens of planted directions whose frequency falls as 1 / rank."""
    generator = torch.Generator().manual_seed(100)
    directions = torch.nn.functional.normalize(
        torch.randn(n_directions, 40, generator=generator), dim=1
    )
    share = 1 / torch.arange(1, n_directions + 1)
    share = (4 * share / share.sum()).clamp(max=0.9)
    is_active = torch.rand(n_tokens, n_directions, generator=generator) < share
    return (is_active * (0.5 + torch.rand(is_active.shape, generator=generator))) @ directions


def settings(**changes):
    values = {
        "n_features": RANK,
        "active_features": ACTIVE + 2,
        "learning_rate": 3e-3,
        "batch_tokens": 128,
        "max_epochs": 120,
        "tol": 1e-4,
        "seed": 0,
        "is_tied": True,
    }
    return TopKSettings(**(values | changes))


def mean_cosine(dictionary, directions):
    return float(match_features(dictionary, directions).cosine.mean())


@pytest.mark.parametrize("seed", [0, 1])
def test_an_autoencoder_recovers_planted_directions(seed):
    activations, directions, codes = planted(seed=seed)
    result = factorize(
        activations, FitConfig(method="sae", rank=RANK, active_features=ACTIVE + 2), seed=seed
    )
    control = torch.randn(RANK, WIDTH, generator=torch.Generator().manual_seed(seed))
    assert mean_cosine(result.dictionary, directions) > 0.85
    assert mean_cosine(control, directions) < 0.4
    match = match_features(result.dictionary, directions)
    found = result.coefficients[:, match.own.tolist()]
    correlation = torch.corrcoef(torch.stack([found.flatten(), codes[:, match.other].flatten()]))
    assert correlation[0, 1] > 0.85
    assert result.explained_variance > 0.95
    assert result.explained_variance_centered > 0.85
    assert result.is_converged
    assert "fell by less than 0.0001 an epoch" in result.stop_reason


def test_a_transcoder_recovers_what_the_output_is_made_of():
    generator = torch.Generator().manual_seed(5)
    outputs, directions, codes = planted()
    readers = torch.nn.functional.normalize(torch.randn(RANK, 40, generator=generator), dim=1)
    inputs = codes @ readers + 3
    fit = FitConfig(method="transcoder", rank=RANK, active_features=ACTIVE + 2)
    result = factorize(outputs, fit, input_activations=inputs)
    assert mean_cosine(result.dictionary, directions) > 0.9
    assert result.dictionary.shape == (RANK, WIDTH)
    assert result.explained_variance_centered > 0.8
    # What the inputs don't tell can't be explained: the theorem's control.
    order = torch.randperm(len(inputs), generator=generator)
    shuffled = factorize(outputs, fit, input_activations=inputs[order])
    assert shuffled.explained_variance_centered < 0.3


def test_a_transcoder_without_its_input_is_refused():
    outputs, *_ = planted(n_tokens=50)
    fit = FitConfig(method="transcoder", rank=4)
    with pytest.raises(FactorizationError, match="each of the 50 tokens; found none: add mlp_in"):
        factorize(outputs, fit)
    with pytest.raises(FactorizationError, match="found 49 rows"):
        factorize(outputs, fit, input_activations=outputs[1:])


def test_coefficients_are_a_brute_force_forward_of_the_weights():
    activations, *_ = planted(n_tokens=300)
    weights = train_topk(activations, activations, settings(max_epochs=3)).weights
    fast = weights.as_encoder().encode(activations)
    for row in (0, 7, 299):
        hidden = [
            float(
                (activations[row] - weights.offset) / weights.input_scale @ weights.encoder[:, j]
                + weights.encoder_bias[j]
            )
            for j in range(RANK)
        ]
        largest = sorted(range(RANK), key=lambda j: -hidden[j])[: ACTIVE + 2]
        for j in range(RANK):
            expected = max(0.0, hidden[j]) * weights.output_scale if j in largest else 0.0
            assert float(fast[row, j]) == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert ((fast > 0).sum(dim=1) <= ACTIVE + 2).all()
    torch.testing.assert_close(weights.dictionary.norm(dim=1), torch.ones(RANK))


def test_dead_latents_come_back_by_the_auxiliary_loss(monkeypatch):
    activations = rare_directions(2000, 200)
    dead = {}
    for weight in (0.0, 1 / 32):
        monkeypatch.setattr("assets.factorization.topk_training.AUX_WEIGHT", weight)
        wide = settings(n_features=200, learning_rate=1e-2, max_epochs=40, tol=0.0)
        coefficients = (
            train_topk(activations, activations, wide).weights.as_encoder().encode(activations)
        )
        dead[weight] = int((coefficients <= 0).all(dim=0).sum())
    assert dead[0.0] >= 10
    assert dead[1 / 32] <= 0.2 * dead[0.0]


def test_running_out_of_epochs_is_said():
    activations, *_ = planted(n_tokens=400)
    seen = []
    training = train_topk(
        activations, activations, settings(max_epochs=10), lambda epoch, _: seen.append(epoch)
    )
    assert not training.is_converged
    assert training.stop_reason == "10 epochs run out before the objective plateaued"
    assert seen == list(range(1, 11))
    assert len(training.objective_trace) == len(training.explained_variance_trace) == 10
    assert training.objective_trace[-1] < training.objective_trace[0]


@pytest.mark.parametrize("max_epochs", [1, 2, 3, 7])
def test_few_epochs_are_kept_to(max_epochs):
    activations, *_ = planted(n_tokens=200)
    training = train_topk(activations, activations, settings(max_epochs=max_epochs))
    assert len(training.objective_trace) == max_epochs


def test_a_plateau_is_where_the_objective_hardly_falls():
    assert has_plateaued([1.0] * 20, tol=1e-4)
    assert not has_plateaued([1.0] * 19, tol=1e-4)
    assert not has_plateaued([1.0 - 0.01 * i for i in range(20)], tol=1e-4)
    assert has_plateaued([1.0 - 0.01 * i for i in range(20)], tol=0.05)


def test_the_defaults_follow_from_rank_and_tokens():
    def default(rank, n_tokens):
        chosen = TopKSettings.for_fit(
            rank,
            n_tokens,
            active_features=None,
            learning_rate=None,
            batch_tokens=None,
            max_epochs=1,
            tol=0.1,
            seed=0,
            is_tied=True,
        )
        return chosen.active_features, chosen.batch_tokens, chosen.learning_rate

    assert default(1, 10)[:2] == (1, 32)
    assert default(64, 8_000)[:2] == (16, 500)
    assert default(4_096, 10**6)[:2] == (32, 4_096)
    assert default(2**14, 10**6)[2] == pytest.approx(2e-4)
    assert default(2, 10)[2] == pytest.approx(3e-3)
