"""Public SAEs against a forward written out here, one architecture at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from assets.activations.site_names import ActivationSite
from assets.factorization.config import FitConfig
from assets.factorization.factorization import Factorization
from assets.factorization.inputs import FactorizationError
from assets.factorization.methods import factorize
from assets.factorization.public_sae import sae_fingerprint, sae_folder
from tests.factorization.planted_saes import (
    LATENTS,
    N_TOKENS,
    SITE,
    WIDTH,
    activations,
    config_of,
    run,
    weights_of,
    written,
)

ARCHITECTURES = ("standard", "topk", "topk_rescaled", "jumprelu", "gated")
NORMALIZATIONS = ("none", "expected_average_only_in", "constant_norm_rescale", "layer_norm")


def brute_force(
    architecture: str, weights: dict[str, torch.Tensor], rows: torch.Tensor, subtracts_bias: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latent activations and reconstruction of prepared rows, latent by latent."""
    acts = torch.zeros(len(rows), LATENTS)
    norms = [float(weights["W_dec"][j].square().sum().sqrt()) for j in range(LATENTS)]
    for t, row in enumerate(rows):
        x = row - weights["b_dec"] if subtracts_bias else row
        hidden = [float(x @ weights["W_enc"][:, j]) for j in range(LATENTS)]
        if architecture == "gated":
            for j in range(LATENTS):
                scale = float(weights["r_mag"][j].exp())
                magnitude = max(0.0, hidden[j] * scale + float(weights["b_mag"][j]))
                acts[t, j] = magnitude if hidden[j] + float(weights["b_gate"][j]) > 0 else 0.0
            continue
        hidden = [h + float(b) for h, b in zip(hidden, weights["b_enc"], strict=True)]
        if architecture == "topk_rescaled":
            hidden = [h * norm for h, norm in zip(hidden, norms, strict=True)]
        largest = sorted(range(LATENTS), key=lambda j: -hidden[j])[:5]
        for j in range(LATENTS):
            fires = hidden[j] > 0
            if architecture == "jumprelu":
                fires = fires and hidden[j] > float(weights["threshold"][j])
            elif architecture.startswith("topk"):
                fires = fires and j in largest
            acts[t, j] = hidden[j] if fires else 0.0
    decoder = weights["W_dec"]
    if architecture == "topk_rescaled":
        decoder = decoder / torch.tensor(norms)[:, None]
    return acts, acts @ decoder + weights["b_dec"]


def by_latent(result: Factorization) -> torch.Tensor:
    """Coefficients with a column for every latent of the SAE."""
    full = torch.zeros(N_TOKENS, LATENTS)
    for column, name in enumerate(result.feature_names):
        full[:, int(str(name).removeprefix("latent "))] = result.coefficients[:, column]
    return full


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("subtracts_bias", [True, False])
def test_what_is_read_equals_a_brute_force_forward(
    tmp_path: Path, architecture: str, subtracts_bias: bool
) -> None:
    weights = weights_of(architecture)
    config = config_of(architecture, apply_b_dec_to_input=subtracts_bias)
    result = run(written(tmp_path, config, weights), site=SITE)
    acts, reconstruction = brute_force(architecture, weights, activations(), subtracts_bias)
    norms = 1.0 if architecture == "topk_rescaled" else weights["W_dec"].norm(dim=1)
    torch.testing.assert_close(by_latent(result), acts * norms, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(result.dictionary.norm(dim=1), torch.ones(result.n_features))
    assert result.offset is not None
    rebuilt = result.coefficients @ result.dictionary + result.offset
    torch.testing.assert_close(rebuilt, reconstruction, rtol=1e-4, atol=1e-4)
    assert result.n_features == int((acts > 0).any(dim=0).sum())
    assert result.is_converged and result.n_iter == 0 and result.objective_trace == []


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_normalised_inputs_are_brought_back_to_the_units_of_the_activations(
    tmp_path: Path, normalization: str
) -> None:
    weights = weights_of("standard")
    config = config_of("standard", normalize_activations=normalization)
    result = run(written(tmp_path, config, weights))
    rows = activations()
    for t in range(N_TOKENS):
        scale, shift = torch.tensor(1.0), torch.tensor(0.0)
        if normalization == "expected_average_only_in":
            scale = torch.stack([row.norm() for row in rows]).mean() / WIDTH**0.5
        elif normalization == "constant_norm_rescale":
            scale = rows[t].norm() / WIDTH**0.5
        elif normalization == "layer_norm":
            shift = rows[t].mean()
            scale = rows[t].std() + 1e-5
        acts, rebuilt = brute_force("standard", weights, (rows[t : t + 1] - shift) / scale, True)
        expected = acts[0] * weights["W_dec"].norm(dim=1) * scale
        torch.testing.assert_close(by_latent(result)[t], expected, rtol=1e-3, atol=1e-4)
        # The part that no feature carries is one vector here: exact where the scale is one too.
        if normalization in ("none", "expected_average_only_in"):
            assert result.offset is not None
            torch.testing.assert_close(
                result.coefficients[t] @ result.dictionary + result.offset,
                rebuilt[0] * scale,
                rtol=1e-3,
                atol=1e-4,
            )


def test_the_strongest_latents_are_kept_and_counted(tmp_path: Path) -> None:
    folder = written(tmp_path, config_of("standard"), weights_of("standard"))
    everything, few = run(folder), run(folder, rank=3)
    energy = everything.coefficients.square().sum(dim=0)
    assert (energy.diff() <= 0).all()
    assert few.n_features == 3
    assert few.feature_names == everything.feature_names[:3]
    torch.testing.assert_close(few.coefficients, everything.coefficients[:, :3])
    live = everything.n_features
    assert f"3 of {LATENTS} latents kept, {live} fire" in few.stop_reason
    assert run(folder, rank=10**6).n_features == live
    assert everything.explained_variance is not None
    assert few.n_dead_features == 0


def test_massive_tokens_do_not_choose_the_latents(tmp_path: Path) -> None:
    folder = written(tmp_path, config_of("standard"), weights_of("standard"))
    rows = activations()
    is_massive = torch.zeros(N_TOKENS, dtype=torch.bool)
    is_massive[4] = True
    rows[4] = 1e4 * weights_of("standard")["W_enc"][:, 0]
    fit = FitConfig(method="sae", path=str(folder), rank=4)
    without = factorize(rows[~is_massive], fit)
    result = factorize(rows, fit, is_massive=is_massive)
    assert result.feature_names == without.feature_names
    assert result.coefficients.shape == (N_TOKENS, 4)


def test_another_width_or_site_is_refused_with_both(tmp_path: Path) -> None:
    folder = written(tmp_path, config_of("standard"), weights_of("standard"))
    fit = FitConfig(method="sae", path=str(folder))
    with pytest.raises(FactorizationError, match="d_in 10; expected the site's width 12"):
        factorize(torch.randn(20, 12), fit)
    with pytest.raises(FactorizationError, match=r"site L7\.resid_post; expected site L8\.mlp_out"):
        run(folder, site=ActivationSite(8, "mlp_out"))


def test_an_sae_that_never_fires_is_refused(tmp_path: Path) -> None:
    silent = weights_of("standard")
    silent["b_enc"] -= 1e6
    with pytest.raises(FactorizationError, match="none of the 23 latents fires"):
        run(written(tmp_path, config_of("standard"), silent))


def test_paths_name_folders_by_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "saes" / "7-resid_post").mkdir(parents=True)
    assert sae_folder("saes/{layer}-{kind}", SITE, tmp_path) == tmp_path / "saes" / "7-resid_post"
    with pytest.raises(FactorizationError, match=r"no such folder; looked at .*8-resid_post"):
        sae_folder("saes/{layer}-{kind}", ActivationSite(8, "resid_post"), tmp_path)
    asked: list[tuple[str, list[str]]] = []

    def snapshot_download(repository: str, allow_patterns: list[str]) -> str:
        asked.append((repository, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert sae_folder("hf://owner/saes/layer{layer}/wide", SITE) == tmp_path / "layer7" / "wide"
    assert sae_folder("hf://owner/saes", SITE) == tmp_path
    assert asked == [
        ("owner/saes", ["layer7/wide/cfg.json", "layer7/wide/sae_weights.safetensors"]),
        ("owner/saes", ["cfg.json", "sae_weights.safetensors"]),
    ]
    with pytest.raises(FactorizationError, match="names no repository"):
        sae_folder("hf://owner", SITE)


def test_the_fingerprint_follows_the_weights(tmp_path: Path) -> None:
    folder = written(tmp_path / "a", config_of("standard"), weights_of("standard"))
    before = sae_fingerprint(folder)
    same = written(tmp_path / "b", config_of("standard"), weights_of("standard"))
    assert sae_fingerprint(same) == before
    weights = weights_of("standard")
    weights["b_dec"][0] += 1
    assert sae_fingerprint(written(folder, config_of("standard"), weights)) != before
