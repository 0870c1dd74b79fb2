"""Members chosen by what they promote: planted features are found, their permuted rows are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from assets.activations.sites import ActivationSite, decoder_direction
from assets.evidence.vocab_projection import vocab_logits
from assets.hierarchy.group_members import ConceptGroup, group_members_frame, members_of
from assets.hierarchy.group_steering import MeasuredToken
from assets.hierarchy.group_tables import GROUP_MEMBERS
from assets.hierarchy.promoted_concepts import ConceptPromotion, concept_promotion
from tests.activations.tiny_models import tiny_model

PARTITION = {"site": "demo:model@L1.mlp_hidden", "fit": "snmf-k024"}
SITE = ActivationSite(1)
TOKENS = {"Mon": 6, "Tue": 17, "Wed": 40}
GROUP = ConceptGroup("days", tuple(TOKENS), is_steered=True)


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama")


def tokens(shared=()):
    return [
        MeasuredToken(c, i, f" {c}", tuple(s for s in shared if s != c) if c in shared else ())
        for c, i in TOKENS.items()
    ]


def planted_dictionary(model, n_noise=20):
    """Noise, a row of zeros, then the rows that raise one token most, at different lengths.

    Logits before the norm are linear in a row: those of the axes, times what the norm divides by.
    """
    width = model.config.intermediate_size
    generator = torch.Generator().manual_seed(0)
    axes = torch.eye(width)
    scale = torch.linalg.vector_norm(decoder_direction(model, SITE, axes), dim=1, keepdim=True)
    linear = (vocab_logits(model, SITE, axes, "+") * scale).detach()
    centred = linear - linear.mean(dim=1, keepdim=True)
    planted = torch.stack([torch.linalg.pinv(centred.T)[:, i] for i in TOKENS.values()])
    planted = torch.nn.functional.normalize(planted, dim=1)
    planted *= torch.tensor([0.1, 1.0, 10.0])[:, None]
    noise = 0.3 * torch.randn(n_noise, width, generator=generator)
    return torch.cat([noise, torch.zeros(1, width), planted])


def documents(k, seed=1):
    """Scores that say nothing of the concepts, which have eight documents each."""
    concepts = [c for c in TOKENS for _ in range(8)]
    scores = np.random.default_rng(seed).random((len(concepts), k))
    return scores, [f"d{i}" for i in range(len(concepts))], concepts


def test_promotion_is_the_tokens_logit_in_deviations_over_the_vocabulary(model):
    dictionary = planted_dictionary(model)
    found = concept_promotion(model, SITE, dictionary, tokens())
    assert found.reasons == {} and set(found.scores) == set(TOKENS)
    for row in (0, 7, 22):
        logits = vocab_logits(model, SITE, dictionary[row : row + 1], "+")[0].double().numpy()
        for concept, token in TOKENS.items():
            expected = (logits[token] - logits.mean()) / logits.std(ddof=1)
            assert found.scores[concept][row] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert all(
        np.flatnonzero(np.isnan(scores)).tolist() == [20] for scores in found.scores.values()
    )


def test_promotion_does_not_depend_on_a_features_length(model):
    dictionary = planted_dictionary(model)
    one = concept_promotion(model, SITE, dictionary, tokens()).scores
    ten = concept_promotion(model, SITE, 10 * dictionary, tokens()).scores
    for concept in TOKENS:
        np.testing.assert_allclose(one[concept], ten[concept], rtol=2e-3, atol=2e-3)


def test_planted_features_become_the_members_where_documents_say_nothing(model):
    dictionary = planted_dictionary(model)
    scores, ids, concepts = documents(len(dictionary))
    scores[:, 20] = np.nan
    promotion = concept_promotion(model, SITE, dictionary, tokens())
    frame = group_members_frame(
        [GROUP], scores, ids, concepts, range(100, 124), seed=0, promotion=promotion
    )
    frame = GROUP_MEMBERS.conform(frame, PARTITION)
    assert members_of(frame, "days") == (["Mon", "Tue", "Wed"], [121, 122, 123])
    assert frame["chosen_by"].unique().to_list() == ["promoted_tokens"]
    noise = max(promotion.scores[concept][:20].max() for concept in TOKENS)
    assert frame["promotion"].min() > noise
    assert frame["auroc"].null_count() == 0
    by_documents = group_members_frame([GROUP], scores, ids, concepts, range(100, 124), seed=0)
    assert by_documents["promotion"].null_count() == 3
    assert members_of(by_documents, "days")[1] != [121, 122, 123]


def test_concepts_of_one_first_token_get_no_feature_and_say_so(model):
    dictionary = planted_dictionary(model)
    promotion = concept_promotion(model, SITE, dictionary, tokens(shared=("Mon", "Tue")))
    assert set(promotion.scores) == {"Wed"}
    scores, ids, concepts = documents(len(dictionary))
    frame = group_members_frame(
        [GROUP], scores, ids, concepts, range(24), seed=0, promotion=promotion
    )
    assert frame["status"].to_list() == ["failed", "failed", "ok"]
    assert frame["reason"][0] == (
        "the first token ' Mon' is also that of Tue: what promotes one promotes the other"
    )
    assert frame["feature_id"].to_list() == [None, None, 23]


def test_a_site_without_decoder_directions_has_members_that_say_why_not(model):
    promotion = concept_promotion(
        model, ActivationSite(1, "mlp_in"), torch.eye(3, model.config.hidden_size), tokens()
    )
    assert promotion.scores == {} and set(promotion.reasons) == set(TOKENS)
    scores, ids, concepts = documents(3)
    frame = group_members_frame(
        [GROUP], scores, ids, concepts, range(3), seed=0, promotion=promotion
    )
    assert frame["status"].unique().to_list() == ["failed"]
    assert "no decoder direction" in frame["reason"][0]


def test_features_that_no_projection_is_known_of_are_passed_over():
    scores, ids, concepts = documents(4)
    promoted = {c: np.array([1.0, 2.0, 3.0, 9.0]) + i for i, c in enumerate(TOKENS)}
    promoted["Tue"][3] = np.nan
    frame = group_members_frame(
        [GROUP], scores, ids, concepts, range(4), 0, ConceptPromotion(promoted, {})
    )
    assert sorted(frame["feature_id"].to_list()) == [0, 1, 2]
    short = group_members_frame(
        [GROUP],
        scores[:, :1],
        ids,
        concepts,
        [0],
        0,
        ConceptPromotion({c: np.ones(1) for c in TOKENS}, {}),
    )
    assert short["status"].to_list().count("ok") == 1
    assert "more concepts than the fit has features" in short.filter(status="failed")["reason"][0]
