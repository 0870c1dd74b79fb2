"""The stage's part of a study: sites from layers and kinds, and settings that cannot be meant."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from assets.activations.config import ActivationsConfig, ModelConfig


def test_sites_are_layers_by_kinds() -> None:
    model = ModelConfig(source="gpt2", layers=(3, 1), kinds=("mlp_hidden", "resid_post"))
    assert [site.key for site in model.sites] == [
        "L3.mlp_hidden",
        "L3.resid_post",
        "L1.mlp_hidden",
        "L1.resid_post",
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"layers": ()},
        {"layers": (1, 1)},
        {"layers": (-1,)},
        {"layers": (1,), "kinds": ("mlp",)},
        {"layers": (1,), "kinds": ()},
        {"layers": (1,), "name": "a|b"},
        {"layers": (1,), "name": "A"},
        {"layers": (1,), "dtype": "int8"},
        {"layers": (1,), "depth": 3},
        {"layers": (1,), "source": ""},
    ],
)
def test_models_that_cannot_be_meant_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        ModelConfig(**({"source": "gpt2"} | wrong))


@pytest.mark.parametrize(
    "wrong",
    [{"massive_norm_ratio": 1.0}, {"batch_tokens": 0}, {"max_tokens_per_document": 1}, {"x": 1}],
)
def test_settings_that_cannot_be_meant_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        ActivationsConfig(**wrong)


def test_what_definitions_import_loads_no_torch() -> None:
    program = (
        "import sys, assets.activations.config, assets.activations.tables, "
        "resources.subject_model, resources.model_sources\n"
        "assert not {'torch', 'transformers', 'dagster'} & set(sys.modules), sys.modules.keys()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
