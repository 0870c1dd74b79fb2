"""A study of every method and kind of site, materialized: a public SAE and a transcoder with them.

The subject model is a tiny random one, and no LLM is asked: this is about the path, not the scores.
"""

import json
from pathlib import Path

import pytest
import torch
from platform_of_test import Platform
from safetensors.torch import save_file
from tiny_study import HIDDEN, LAYER, write_tiny_study

from assets.activations.site_names import SITE_KINDS
from assets.factorization.methods import METHODS

WIDTH, LATENTS = 40, 30
FITS = [
    {"method": "snmf", "rank": 6, **HIDDEN},
    {"method": "transcoder", "rank": 6, "max_iter": 10},
    {"method": "sae", "rank": 6, "max_iter": 10, **HIDDEN},
    {"method": "sae", "path": "saes/layer{layer}", "rank": 6, "name": "public", **HIDDEN},
    {"method": "diff_means", **HIDDEN},
    {"method": "pca", "rank": 6, "kinds": ["mlp_in"]},
    {"method": "kmeans", "rank": 6, "kinds": ["attn_out"]},
    {"method": "neurons", "rank": 6, "kinds": ["resid_post"]},
    {"method": "nmf", "rank": 6, **HIDDEN},
    {"method": "random", "rank": 6, **HIDDEN},
    {"method": "permuted", "rank": 6, "max_iter": 20, **HIDDEN},
    {"method": "covariance", "rank": 6, **HIDDEN},
]


def write_public_sae(folder: Path) -> None:
    """A random standard SAE of the layer's MLP neurons, in SAELens format."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    decoder = torch.randn(LATENTS, WIDTH, generator=generator)
    weights = {
        "W_enc": decoder.T.contiguous(),
        "b_enc": torch.zeros(LATENTS),
        "W_dec": decoder,
        "b_dec": torch.zeros(WIDTH),
    }
    save_file(weights, folder / "sae_weights.safetensors")
    config = {
        "architecture": "standard",
        "d_in": WIDTH,
        "d_sae": LATENTS,
        "metadata": {"hook_name": f"blocks.{LAYER}.mlp.hook_post"},
    }
    (folder / "cfg.json").write_text(json.dumps(config))


@pytest.mark.slow
def test_every_method_and_kind_of_site_reaches_the_catalogue(platform: Platform) -> None:
    write_public_sae(platform.root / "studies" / "saes" / f"layer{LAYER}")
    write_tiny_study(
        platform.root,
        "llama",
        kinds=SITE_KINDS,
        fits=FITS,
        steering={"max_features": 1, "max_features_controls": 1, "target_kl_nats": [0.001]},
    )
    result = platform.materialize()
    failures = [
        event.step_failure_data.error.message
        for event in result.all_events
        if event.is_step_failure and event.step_failure_data.error
    ]
    assert result.success, failures

    lake = platform.lake
    made = lake.query(
        "SELECT fit, site_kind, any_value(method) AS method, count(*) AS n FROM features "
        "GROUP BY ALL ORDER BY ALL"
    )
    assert set(made["method"]) == set(METHODS)
    assert set(made["site_kind"]) == set(SITE_KINDS)
    kinds_of_fit = dict(made.select("fit", "site_kind").iter_rows())
    assert len(made) == len(kinds_of_fit) == len(FITS)
    elsewhere = {
        "transcoder-k006": "mlp_out",
        "pca-k006": "mlp_in",
        "kmeans-k006": "attn_out",
        "neurons-k006": "resid_post",
    }
    assert {fit: kind for fit, kind in kinds_of_fit.items() if kind != "mlp_hidden"} == elsewhere
    for row in made.iter_rows(named=True):
        assert row["n"] == (2 if row["method"] == "diff_means" else 6), row

    fits = lake.query("SELECT * FROM factorizations")
    assert set(fits["status"]) == {"ok"}
    assert fits["explained_variance"].null_count() == 0
    with_offset = set(fits.filter(fits["offset_vector"].is_not_null())["method"])
    assert with_offset == {"pca", "sae", "transcoder"}
    public = fits.filter(fit="sae-k006-public").row(0, named=True)
    assert "latents kept" in public["stop_reason"]
    names = lake.query("SELECT feature_name FROM features WHERE fit = 'sae-k006-public'")
    assert all(name.startswith("latent ") for name in names["feature_name"])

    # A direction that only the MLP reads has no vocabulary projection; it steers all the same.
    projected = lake.query("SELECT DISTINCT site FROM vocab_projection")["site"].to_list()
    assert {site.rpartition(".")[2] for site in projected} == set(SITE_KINDS) - {"mlp_in"}
    steered = lake.query("SELECT DISTINCT site, fit FROM calibrations WHERE status = 'ok'")
    assert len(steered) == len(made)
    ablated = lake.query("SELECT DISTINCT site, fit FROM ablation_effects WHERE status = 'ok'")
    assert len(ablated) == len(made)
