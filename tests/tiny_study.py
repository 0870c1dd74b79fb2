"""A study of a tiny random model on sentences of two concepts: about the path, not the scores.

No LLM is asked: nothing is labelled, so nothing is judged.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mini_study import write_study
from torch import nn

from tests.activations.tiny_models import tiny_model, word_tokenizer

LAYER = 1
PROMPT = "w1 w2 w3"
HIDDEN = {"kinds": ["mlp_hidden"]}
_STEERING = {"n_texts": 1, "max_new_tokens": 3, "neutral_prompts": [PROMPT]}


def write_tiny_study(
    root: Path,
    architecture: str,
    *,
    kinds: Sequence[str],
    fits: Sequence[dict[str, Any]],
    steering: dict[str, Any],
    **changes: Any,
) -> nn.Module:
    """Model, corpus and study file below `root`; the model."""
    model = write_tiny_model(root, architecture)
    site = {"layers": [LAYER], "kinds": list(kinds)}
    sections: dict[str, Any] = {
        "corpus": {"path": "words.jsonl"},
        "models": [{"source": str(root / "tiny"), "name": "tiny", **site}],
        "fits": list(fits),
        "labels": {"max_features": 0, "max_features_controls": 0},
        "steering": _STEERING | steering,
    }
    write_study(root / "studies", **(sections | changes))
    return model


def write_tiny_model(root: Path, architecture: str) -> nn.Module:
    """Model in `root`/tiny and corpus in `root`/studies; the model."""
    model: Any = tiny_model(architecture)
    model.save_pretrained(root / "tiny")
    word_tokenizer(adds_bos=False).save_pretrained(root / "tiny")
    (root / "studies").mkdir(parents=True, exist_ok=True)
    _write_corpus(root / "studies" / "words.jsonl")
    return model


def _write_corpus(path: Path) -> None:
    """Sentences of two concepts, which share no words."""
    draw = random.Random(0)
    lines = []
    for i in range(16):
        concept, low = ("low", 0) if i % 2 else ("high", 30)
        words = " ".join(f"w{draw.randrange(low, low + 30)}" for _ in range(12))
        lines.append(json.dumps({"text": words, "concept": concept}))
    path.write_text("\n".join(lines))
