"""The demo at a reduced size, to run for real in a test: one layer, its four fits, few judged."""

from pathlib import Path
from typing import Any

import yaml

MINI_STUDY: dict[str, Any] = {
    "name": "mini",
    "corpus": {
        "path": "bundled:concepts",
        "concepts": ["Monday", "red", "French", "SQL", "sushi", "football"],
        "max_documents_per_concept": 12,
    },
    "models": [{"source": "smollm2-135m-instruct", "layers": [20]}],
    "activations": {"max_tokens_per_document": 48},
    "fits": [
        {
            "method": "snmf",
            "rank": 12,
            "keep_fraction": 0.02,
            "max_iter": 20,
            "stability_seeds": 1,
        },
        {"method": "diff_means"},
        {"method": "random", "rank": 6, "keep_fraction": 0.02},
        {"method": "permuted", "rank": 6, "keep_fraction": 0.02, "max_iter": 20},
    ],
    "faithfulness": {
        "n_documents": 8,
        "n_documents_per_feature": 2,
        "max_features": 4,
        "max_features_controls": 2,
    },
    "evidence": {"n_top": 4, "n_sampled": 2, "n_held_out": 3, "n_negative": 3},
    "labels": {"max_features": 2, "max_features_controls": 1, "n_held_out": 2},
    "hierarchy": {
        "groups": {"themes": ["Monday", "red", "French"]},
        "core_share": 0.6,
        "group_prompts": ["Today is"],
        "n_null_draws": 1,
        "n_starts": 2,
    },
    "detection": {"n_activating": 2, "n_neutral": 3},
    "steering": {
        "max_features": 2,
        "max_features_controls": 1,
        "target_kl_nats": [0.5],
        "n_texts": 1,
        "max_new_tokens": 8,
        "neutral_prompts": ["I think that", "She said"],
    },
    "ablation": {
        "max_features": 2,
        "max_features_controls": 1,
        "n_documents_on": 2,
        "n_documents_off": 1,
        "n_documents_concept": 1,
    },
}


def write_study(folder: Path, **changes: Any) -> Path:
    """The mini study, with `changes` in place of its sections, as a file in `folder`."""
    content = {**MINI_STUDY, **changes}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{content['name']}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


# One layer near the model's end, two small fits, an LLM at OPENAI_BASE_URL (counting_llm.py).
QUICK_STUDY: dict[str, Any] = MINI_STUDY | {
    "corpus": MINI_STUDY["corpus"]
    | {"concepts": ["Monday", "red", "sushi"], "max_documents_per_concept": 10},
    "models": [{"source": "smollm2-135m-instruct", "layers": [26]}],
    "activations": {"max_tokens_per_document": 32},
    "fits": [
        MINI_STUDY["fits"][0] | {"rank": 6},
        {"method": "permuted", "rank": 4, "keep_fraction": 0.02, "max_iter": 20},
    ],
    "faithfulness": MINI_STUDY["faithfulness"]
    | {"n_documents": 4, "n_documents_per_feature": 1, "max_features": 2},
    "llm": {"model": "fake"},
    "hierarchy": MINI_STUDY["hierarchy"] | {"groups": {"themes": ["Monday", "red"]}},
    "steering": MINI_STUDY["steering"] | {"neutral_prompts": ["I think that"]},
}


def write_quick_study(folder: Path, **changes: Any) -> Path:
    """The quick study, with `changes` in place of its sections, as a file in `folder`."""
    return write_study(folder, **(QUICK_STUDY | changes))
