"""A feature that its concept needs is told from one that all concepts need, and from its null."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
import torch
from torch import Tensor

from assets.ablation.config import AblationConfig
from assets.ablation.measure import measure_ablations
from assets.activations.capture import capture_rows
from assets.activations.sites import ActivationSite, final_norm, norm_scale, unembedding
from assets.faithfulness.sample import sample_documents
from tests.activations.tiny_models import N_LAYERS, tiny_model
from tests.faithfulness.planted import BOS, coefficients_frame

SITE = ActivationSite(N_LAYERS - 1, "resid_post")
# Documents of a concept repeat its token; another one ends each.
TOKEN_OF = {"first": 11, "second": 27}
END = 40
CONFIG = AblationConfig(ablations=("zero",), n_documents_off=12, n_documents_concept=6)
SELECTIVE, UNSELECTIVE, IN_THE_BAND = 1, 2, 3


def corpus() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Tokens of 12 documents of each concept, and the concepts."""
    ids = [(f"{concept} {i:02}", concept, i) for concept in TOKEN_OF for i in range(12)]
    rows = [
        {"document_id": name, "position": len(BOS) + place, "token_id": token}
        for name, concept, i in ids
        for place, token in enumerate([*[TOKEN_OF[concept]] * (4 + i % 3), END])
    ]
    tokens = pl.DataFrame(rows).with_row_index("row").with_columns(is_massive=pl.lit(False))
    named = [(name, concept) for name, concept, _ in ids]
    documents = pl.DataFrame(named, schema=["document_id", "concept"], orient="row")
    return tokens, documents.with_columns(minhash="document_id")


def planted_features(model: Any, tokens: pl.DataFrame) -> tuple[Tensor, Tensor]:
    """Directions [3, d] that promote next tokens, and coefficients [n_tokens, 3].

    SELECTIVE promotes the first concept's token in documents of it; UNSELECTIVE that of each
    concept in documents of both, a little stronger in the first; IN_THE_BAND that of the second,
    and is strongest where another token comes next, 0.4 as strong where it is the next.
    """
    documents = [one.document for one in sample_documents(tokens, BOS, len(tokens), seed=0)]
    size = float(capture_rows(model, documents, SITE).norm(dim=1).median())
    scale = norm_scale(final_norm(model))
    first, second = (
        torch.nn.functional.normalize(scale * unembedding(model)[token], dim=0)
        for token in TOKEN_OF.values()
    )
    next_token = tokens["token_id"].shift(-1, fill_value=END)
    is_first = torch.tensor(tokens["document_id"].str.starts_with("first").to_list())
    goes_on = torch.tensor((next_token == tokens["token_id"]).to_list())
    ends = torch.tensor((next_token == END).to_list()) & ~torch.tensor(
        (tokens["token_id"] == END).to_list()
    )
    coefficients = torch.stack(
        [
            is_first.float(),
            torch.where(is_first, 1.0, 0.98),
            ends.float() + 0.4 * (goes_on & ~is_first),
        ],
        dim=1,
    )
    return torch.stack([first, (first + second) / 2, second]), size * coefficients


@pytest.fixture(scope="module")
def effects() -> dict[tuple[int, bool], dict[str, Any]]:
    """Rows of `ablation_effects` by feature and whether it is the null."""
    model = tiny_model("llama")
    tokens, documents = corpus()
    dictionary, coefficients = planted_features(model, tokens)
    ids = [SELECTIVE, UNSELECTIVE, IN_THE_BAND]
    measured = measure_ablations(
        model,
        SITE,
        feature_ids=ids,
        dictionary=dictionary,
        measured_ids=ids,
        coefficients=coefficients_frame(coefficients, ids),
        tokens=tokens,
        special_prefix=BOS,
        promoted={},
        config=CONFIG,
        firing_share=0.2,
        study_documents=documents,
        concept_of=dict.fromkeys(ids, "first"),
    )
    return {(row["feature_id"], row["is_null"]): row for row in measured.effects.to_dicts()}


def test_a_feature_that_its_concept_needs_is_selective(effects: dict) -> None:
    row, null = effects[SELECTIVE, False], effects[SELECTIVE, True]
    assert (row["n_documents_concept"], row["n_documents_other"]) == (6, 6)
    assert row["delta_concept"] > 0.1 and row["delta_other"] == row["kl_other"] == 0.0
    assert row["concept_selectivity_low"] > 0.1
    assert row["concept_selectivity"] == row["delta_concept"]
    # The null takes out as much in the same documents, along other neurons.
    assert null["kl_concept"] > 1e-3
    assert abs(null["concept_selectivity"]) < row["concept_selectivity"] / 2


def test_a_feature_that_all_concepts_need_is_not(effects: dict) -> None:
    row = effects[UNSELECTIVE, False]
    assert row["concept"] == "first" and row["delta_concept"] > 0.1 < row["delta_other"]
    assert row["concept_selectivity"] == pytest.approx(0, abs=row["delta_concept"] / 5)


def test_off_target_holds_what_is_weak_and_selectivity_can_fall_below_0(effects: dict) -> None:
    """It fires in every document, so that by documents without it nothing would be off target."""
    row = effects[IN_THE_BAND, False]
    assert row["n_tokens_off"] > 0 and row["delta_off"] > 3 * row["delta_on"]
    assert row["selectivity"] < -0.1 and row["selectivity_high"] < 0
