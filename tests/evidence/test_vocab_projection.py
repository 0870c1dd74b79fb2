"""The vocabulary projection against one written out by hand, on tiny random models."""

from __future__ import annotations

import pytest
import torch

from assets.activations.sites import ActivationSite, locate_site
from assets.evidence.tables import VOCAB_PROJECTION
from assets.evidence.vocab_projection import (
    decode_vocabulary,
    project_vocabulary,
    unprojectable_because,
)
from tests.activations.tiny_models import tiny_model

SITE = ActivationSite(1, "mlp_hidden")


class LetterTokenizer:
    """60 known tokens: 0 and 1 special, 2 a partial character, 3 unused, 4 empty."""

    all_special_ids = (0, 1)

    def __len__(self) -> int:
        return 60

    def decode(self, ids: list[int]) -> str:
        return {2: "\ufffd", 3: "<unused7>", 4: ""}.get(ids[0], f" word{ids[0]}")


def naive_logits(architecture: str, model: torch.nn.Module, feature: torch.Tensor) -> torch.Tensor:
    """Down projection, final norm and unembedding of one feature, each by the model's own name."""
    if architecture == "gpt2":
        direction = feature @ model.transformer.h[1].mlp.c_proj.weight
        return model.lm_head(model.transformer.ln_f(direction))
    direction = model.model.layers[1].mlp.down_proj.weight @ feature
    return model.lm_head(model.model.norm(direction))


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_projection_equals_the_naive_one(architecture: str) -> None:
    model = tiny_model(architecture)
    width = locate_site(model, SITE).width
    dictionary = torch.randn(5, width, generator=torch.Generator().manual_seed(0))
    frame = project_vocabulary(
        model, LetterTokenizer(), SITE, dictionary, n_vocab=6, batch_features=2
    )
    VOCAB_PROJECTION.conform(frame, {"site": "s", "fit": "f"})
    assert len(frame) == 5 * 2 * 6
    for (feature, sign), rows in frame.group_by("feature_id", "sign"):
        factor = 1.0 if sign == "+" else -1.0
        logits = naive_logits(architecture, model, factor * dictionary[feature])
        readable = logits[5:60]
        expected = torch.argsort(readable, descending=True)[:6] + 5
        rows = rows.sort("rank_in_sign")
        assert rows["token_id"].to_list() == expected.tolist()
        assert rows["token"].to_list() == [f" word{i}" for i in expected.tolist()]
        assert torch.allclose(torch.tensor(rows["logit"].to_list()), logits[expected], atol=1e-4)


def test_negative_sign_is_no_mirror_image_under_a_layer_norm_with_bias() -> None:
    model = tiny_model("gpt2")
    dictionary = torch.randn(1, locate_site(model, SITE).width)
    frame = project_vocabulary(model, LetterTokenizer(), SITE, dictionary, n_vocab=55)
    plus, minus = (
        dict(frame.filter(sign=sign).select("token_id", "logit").iter_rows()) for sign in "+-"
    )
    assert max(abs(plus[token] + minus[token]) for token in plus) > 1e-3


@pytest.mark.parametrize("kind", ["mlp_out", "attn_out", "resid_post"])
def test_features_of_the_stream_are_unembedded_as_they_are(kind: str) -> None:
    model = tiny_model("llama")
    site = ActivationSite(1, kind)
    assert unprojectable_because(site) is None
    dictionary = torch.randn(2, locate_site(model, site).width)
    frame = project_vocabulary(model, LetterTokenizer(), site, dictionary, n_vocab=1)
    for feature in range(2):
        logits = model.lm_head(model.model.norm(dictionary[feature]))
        best = frame.filter(feature_id=feature, sign="+")["logit"].item()
        assert best == pytest.approx(float(logits[5:60].max()), abs=1e-4)


def test_what_only_the_mlp_reads_has_no_projection() -> None:
    assert "mlp_in" in str(unprojectable_because(ActivationSite(1, "mlp_in")))


def test_unreadable_tokens_are_left_out() -> None:
    texts = decode_vocabulary(LetterTokenizer(), 64)
    assert [i for i, text in enumerate(texts) if text is None] == [0, 1, 2, 3, 4, 60, 61, 62, 63]
    assert texts[5] == " word5"


def test_feature_ids_name_the_rows() -> None:
    model = tiny_model("llama")
    dictionary = torch.randn(2, locate_site(model, SITE).width)
    frame = project_vocabulary(
        model, LetterTokenizer(), SITE, dictionary, n_vocab=1, feature_ids=[9, 4], signs=["-"]
    )
    assert frame["feature_id"].to_list() == [9, 4]
    with pytest.raises(ValueError, match="expected one each"):
        project_vocabulary(model, LetterTokenizer(), SITE, dictionary, n_vocab=1, feature_ids=[1])
