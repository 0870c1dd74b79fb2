"""Folders in SAELens format: older forms are read; broken ones, or of another meaning, named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from assets.activations.site_names import ActivationSite
from assets.factorization.inputs import FactorizationError
from assets.factorization.saelens_format import read_public_sae, site_of_hook
from tests.factorization.planted_saes import (
    LATENTS,
    SITE,
    WIDTH,
    config_of,
    run,
    weights_of,
    written,
)


def test_older_flat_configs_are_read(tmp_path: Path) -> None:
    old = {
        "d_in": WIDTH,
        "d_sae": LATENTS,
        "hook_point": "blocks.8.hook_resid_pre",
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 4},
        "normalize_activations": False,
    }
    sae = read_public_sae(written(tmp_path / "old", old, weights_of("topk")))
    assert (sae.architecture, sae.k, sae.normalization) == ("topk", 4, "none")
    assert sae.applies_decoder_bias
    assert site_of_hook(sae.hook_name) == SITE
    weights = weights_of("jumprelu")
    weights["log_threshold"] = weights.pop("threshold").log()
    jump = read_public_sae(written(tmp_path / "jump", config_of("jumprelu"), weights))
    torch.testing.assert_close(jump.weights["threshold"], weights["log_threshold"].exp())
    scaled = weights_of("standard") | {"scaling_factor": torch.full((LATENTS,), 2.0)}
    twice = run(written(tmp_path / "scaled", config_of("standard"), scaled))
    once = run(written(tmp_path / "plain", config_of("standard"), weights_of("standard")))
    torch.testing.assert_close(twice.coefficients, 2 * once.coefficients)


def test_half_precision_weights_are_read(tmp_path: Path) -> None:
    halves = {name: tensor.bfloat16() for name, tensor in weights_of("standard").items()}
    result = run(written(tmp_path, config_of("standard", dtype="bfloat16"), halves))
    assert result.coefficients.dtype == result.dictionary.dtype == torch.float32


@pytest.mark.parametrize(
    ("hook", "site"),
    [
        ("blocks.3.hook_resid_post", ActivationSite(3, "resid_post")),
        ("blocks.3.hook_resid_pre", ActivationSite(2, "resid_post")),
        ("blocks.0.hook_resid_pre", None),
        ("blocks.3.mlp.hook_post", ActivationSite(3, "mlp_hidden")),
        ("blocks.12.hook_mlp_out", ActivationSite(12, "mlp_out")),
        ("blocks.12.hook_attn_out", ActivationSite(12, "attn_out")),
        ("blocks.3.attn.hook_z", None),
        ("model.layers.3", None),
        (None, None),
    ],
)
def test_hooks_are_sites(hook: str | None, site: ActivationSite | None) -> None:
    assert site_of_hook(hook) == site


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "temporal"}, "found architecture 'temporal'; expected one of standard"),
        ({"architecture": "jumprelu"}, r"threshold missing for architecture jumprelu; found W_dec"),
        ({"architecture": "topk"}, "found k None for a topk SAE of 23 latents"),
        ({"architecture": "topk", "k": 24}, "found k 24"),
        ({"normalize_activations": "softly"}, "found normalize_activations 'softly'"),
        ({"reshape_activations": "hook_z"}, "reshape_activations 'hook_z'"),
    ],
)
def test_configs_that_mean_something_else_are_refused(
    tmp_path: Path, changes: dict, message: str
) -> None:
    folder = written(tmp_path, config_of("standard") | changes, weights_of("standard"))
    with pytest.raises(FactorizationError, match=message) as caught:
        read_public_sae(folder)
    assert str(tmp_path) in str(caught.value)


def test_broken_and_missing_files_are_named(tmp_path: Path) -> None:
    folder = written(tmp_path, config_of("standard"), weights_of("standard"))
    (folder / "cfg.json").write_text("{")
    with pytest.raises(FactorizationError, match=r"cfg\.json is no readable JSON"):
        read_public_sae(folder)
    (folder / "cfg.json").write_text("[]")
    with pytest.raises(FactorizationError, match="holds list; expected an object"):
        read_public_sae(folder)
    (folder / "cfg.json").write_text(json.dumps(config_of("standard")))
    (folder / "sae_weights.safetensors").write_bytes(b"no weights")
    with pytest.raises(FactorizationError, match="no readable safetensors file"):
        read_public_sae(folder)
    (folder / "sae_weights.safetensors").unlink()
    with pytest.raises(FactorizationError, match=r"no file .*sae_weights\.safetensors; expected"):
        read_public_sae(folder)
    wrong = weights_of("standard") | {"b_enc": torch.zeros(4)}
    with pytest.raises(FactorizationError, match=r"b_enc has shape \[4\]; expected \[23\]"):
        read_public_sae(written(tmp_path / "shape", config_of("standard"), wrong))
