"""A study of a model with a norm behind its MLPs: all that steers adds its vectors after the norm.

What the tables say is made again with a hook of its own on the whole model.
"""

import json
import random
from pathlib import Path

import polars as pl
import pytest
import torch
from mini_study import write_study
from platform_of_test import Platform
from torch import nn

from assets.steering.input_score import first_tokens
from assets.steering.output_score import rank_weighted_probability
from tests.activations.tiny_models import tiny_model, word_tokenizer

LAYER = 1
PROMPT = "w1 w2 w3"
HIDDEN = {"kinds": ["mlp_hidden"]}
FITS = [
    {"method": "snmf", "rank": 6, **HIDDEN},
    {"method": "diff_means", **HIDDEN},
    {"method": "random", "rank": 6, **HIDDEN},
    {"method": "pca", "rank": 6, "kinds": ["mlp_out"]},
]


def write_model(folder: Path) -> nn.Module:
    """A tiny random Gemma 2 with its word tokenizer, as transformers saves them."""
    model = tiny_model("gemma2")
    model.save_pretrained(folder)
    word_tokenizer(adds_bos=False).save_pretrained(folder)
    return model


def write_corpus(path: Path) -> None:
    """Sentences of two concepts, which share no words."""
    draw = random.Random(0)
    lines = []
    for i in range(16):
        concept, low = ("low", 0) if i % 2 else ("high", 30)
        words = " ".join(f"w{draw.randrange(low, low + 30)}" for _ in range(12))
        lines.append(json.dumps({"text": words, "concept": concept}))
    path.write_text("\n".join(lines))


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
    studies = platform.root / "studies"
    model = write_model(platform.root / "tiny")
    write_corpus(studies / "words.jsonl")
    write_study(
        studies,
        corpus={"path": "words.jsonl"},
        models=[
            {
                "source": str(platform.root / "tiny"),
                "name": "tiny",
                "layers": [LAYER],
                "kinds": ["mlp_hidden", "mlp_out"],
            }
        ],
        fits=FITS,
        labels={"max_features": 0, "max_features_controls": 0},
        hierarchy={"groups": {"themes": ["low", "high"]}, "n_null_draws": 1, "n_starts": 1},
        steering={
            "max_features": 2,
            "max_features_controls": 2,
            "target_kl_nats": [0.01, 0.05],
            "n_texts": 1,
            "max_new_tokens": 3,
            "neutral_prompts": [PROMPT],
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
