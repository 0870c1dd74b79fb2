"""A study of a model with a norm behind its MLPs: all that steers adds its vectors after the norm.

What the tables say is made again with a hook of its own on the whole model.
"""

import polars as pl
import pytest
import torch
from platform_of_test import Platform
from tiny_study import HIDDEN, LAYER, PROMPT, write_tiny_study
from torch import nn

from assets.steering.input_score import first_tokens
from assets.steering.output_score import rank_weighted_probability
from tests.activations.tiny_models import word_tokenizer

FITS = [
    {"method": "snmf", "rank": 6, **HIDDEN},
    {"method": "diff_means", **HIDDEN},
    {"method": "random", "rank": 6, **HIDDEN},
    {"method": "pca", "rank": 6, "kinds": ["mlp_out"]},
]


def last_logits(model: nn.Module, vector: torch.Tensor) -> torch.Tensor:
    """Logits after the prompt, the vector added to what the norm behind the MLP gives."""
    norm = model.model.layers[LAYER].post_feedforward_layernorm
    ids = word_tokenizer(adds_bos=False)(PROMPT)["input_ids"]
    handle = norm.register_forward_hook(lambda _, __, output: output + vector)
    try:
        with torch.no_grad():
            return model(input_ids=torch.tensor([ids])).logits[0, -1]
    finally:
        handle.remove()


def added(model: nn.Module, row: dict, dictionary: pl.DataFrame) -> torch.Tensor:
    """norm(W z) at the length `strength`; of a feature of mlp_out, the feature itself."""
    weights = dictionary.filter(
        site=row["site"], fit=row["fit"], feature_id=row["feature_id"]
    ).select("neuron", "weight")
    layer = model.model.layers[LAYER]
    direction = torch.zeros(40 if row["site"].endswith("mlp_hidden") else 16)
    for neuron, weight in weights.iter_rows():
        direction[neuron] = weight
    if row["site"].endswith("mlp_hidden"):
        direction = layer.post_feedforward_layernorm(layer.mlp.down_proj(direction))
    factor = row["strength"] if row["sign"] == "+" else -row["strength"]
    return factor * direction / direction.norm()


@pytest.mark.slow
def test_every_steering_stage_adds_after_the_norm(platform: Platform) -> None:
    model = write_tiny_study(
        platform.root,
        "gemma2",
        kinds=["mlp_hidden", "mlp_out"],
        fits=FITS,
        hierarchy={"groups": {"themes": ["low", "high"]}, "n_null_draws": 1, "n_starts": 1},
        steering={
            "max_features": 2,
            "max_features_controls": 2,
            "target_kl_nats": [0.01, 0.05],
            "max_strength_ratio": 1e4,
        },
    )
    result = platform.materialize()
    failures = [
        event.step_failure_data.error.message
        for event in result.all_events
        if event.is_step_failure and event.step_failure_data.error
    ]
    assert result.success, failures
    lake = platform.lake

    calibrations = lake.query("SELECT * FROM calibrations")
    assert set(calibrations["steered_at"]) == {"mlp_out"} and set(calibrations["status"]) == {"ok"}
    assert len(set(calibrations["fit"])) == len(FITS)
    dictionary = lake.query("SELECT * FROM dictionary")
    base = last_logits(model, torch.zeros(16)).double().log_softmax(-1)
    scores = lake.query("SELECT * FROM judge_free_scores").drop("status", "reason", "strength")
    joined = calibrations.join(scores, on=["site", "fit", "feature_id", "sign", "target_kl_nats"])
    assert len(joined) == len(calibrations) == len(FITS) * 2 * 2 * 2
    for row in joined.iter_rows(named=True):
        logits = last_logits(model, added(model, row, dictionary))
        steered = logits.double().log_softmax(-1)
        kl = float((base.exp() * (base - steered)).sum())
        assert kl == pytest.approx(row["achieved_kl_nats"], rel=1e-3)
        assert kl == pytest.approx(row["target_kl_nats"], rel=0.051)
        projection = lake.query("SELECT * FROM vocab_projection").filter(
            site=row["site"], fit=row["fit"]
        )
        own = first_tokens(projection)[row["feature_id"], row["sign"]]
        assert row["output_score"] == pytest.approx(
            rank_weighted_probability(logits, own), rel=1e-3
        )
    texts = lake.query("SELECT * FROM steered_texts")
    assert set(texts["status"]) <= {"ok", "empty"}
    for fit in ("snmf-k006", "random-k006"):
        rows = lake.query(f"SELECT * FROM group_steering WHERE fit = '{fit}'")
        assert set(rows["steered_at"]) == {"mlp_out"}
