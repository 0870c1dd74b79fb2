"""Small folders in SAELens format of every architecture, and a site's activations for them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from assets.activations.site_names import ActivationSite
from assets.factorization.config import FitConfig
from assets.factorization.factorization import Factorization
from assets.factorization.methods import factorize

WIDTH, LATENTS, N_TOKENS = 10, 23, 50
SITE = ActivationSite(7, "resid_post")


def activations() -> torch.Tensor:
    return torch.randn(N_TOKENS, WIDTH, generator=torch.Generator().manual_seed(4)) + 0.3


def weights_of(architecture: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(8)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    weights = {
        "W_enc": draw(WIDTH, LATENTS),
        "W_dec": draw(LATENTS, WIDTH),
        "b_dec": 0.2 * draw(WIDTH),
    }
    if architecture == "gated":
        weights |= {"b_gate": draw(LATENTS), "b_mag": draw(LATENTS), "r_mag": 0.3 * draw(LATENTS)}
    else:
        weights["b_enc"] = 0.5 * draw(LATENTS)
    if architecture == "jumprelu":
        weights["threshold"] = draw(LATENTS).abs()
    return weights


def config_of(architecture: str, **changes: object) -> dict[str, object]:
    config: dict[str, object] = {
        "architecture": architecture.removesuffix("_rescaled"),
        "d_in": WIDTH,
        "d_sae": LATENTS,
        "dtype": "float32",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.21.0", "hook_name": "blocks.7.hook_resid_post"},
    }
    if architecture.startswith("topk"):
        config |= {"k": 5, "rescale_acts_by_decoder_norm": architecture == "topk_rescaled"}
    return config | changes


def written(folder: Path, config: dict[str, object], weights: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file(weights, folder / "sae_weights.safetensors")
    return folder


def run(folder: Path, rank: int | None = None, **options: object) -> Factorization:
    fit = FitConfig(method="sae", path=str(folder), rank=rank)
    return factorize(activations(), fit, **options)
