"""The best corpus concept of a feature: chosen on one half, measured on the other."""

from __future__ import annotations

import numpy as np
import pytest

from assets.detection.concept_statistics import auroc_matrix
from assets.detection.config import DetectionConfig
from assets.detection.corpus_concepts import (
    concept_membership,
    corpus_concept_rows,
    split_in_halves,
)
from assets.detection.tables import CONCEPT_DETECTION

CONFIG = DetectionConfig(seed=3)
PARTITION = {"site": "demo:m@L01.mlp_hidden", "fit": "snmf-k064"}
CONCEPTS = [f"concept {i % 30}" for i in range(300)]
IDS = [f"document {i}" for i in range(300)]


def test_chosen_and_measured_apart_is_unbiased_where_one_half_for_both_is_not() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(300, 200))
    rows = corpus_concept_rows(scores, IDS, list(CONCEPTS), CONFIG)
    CONCEPT_DETECTION.conform(rows, PARTITION)
    assert float(np.mean(rows["auroc"].to_numpy())) == pytest.approx(0.5, abs=0.03)
    # The control: the same scores, the concept measured where it was chosen.
    halves = split_in_halves(IDS, CONCEPTS, CONFIG.seed)
    _, membership = concept_membership(CONCEPTS, halves)
    same_half = auroc_matrix(scores[halves], membership[halves]).max(axis=1)
    assert same_half.mean() > 0.6


def test_a_feature_of_a_concept_is_found_with_its_name() -> None:
    generator = np.random.default_rng(1)
    scores = generator.random((300, 8)) * 0.2
    for feature in range(8):
        scores[np.array(CONCEPTS) == f"concept {feature + 3}", feature] += 0.5
    rows = corpus_concept_rows(scores, IDS, list(CONCEPTS), CONFIG)
    assert rows["concept"].to_list() == [f"concept {i + 3}" for i in range(8)]
    assert rows["auroc"].to_list() == [1.0] * 8
    assert set(rows["status"]) == {"ok"} and set(rows["n_positive"]) == {5}
    assert float(rows["s_cd"].min()) > 1.0  # type: ignore[arg-type]


def test_halves_are_disjoint_stratified_and_seeded() -> None:
    halves = split_in_halves(IDS, CONCEPTS, 0)
    for concept in set(CONCEPTS):
        assert halves[np.array(CONCEPTS) == concept].sum() == 5
    assert (split_in_halves(IDS, CONCEPTS, 0) == halves).all()
    assert (split_in_halves(IDS, CONCEPTS, 1) != halves).any()


@pytest.mark.parametrize(
    ("concepts", "words"),
    [
        ([None] * 20, "name no concepts"),
        ([f"c{i}" for i in range(20)], "no concept has 4 documents"),
        (["the only one"] * 20, "no concept has 4 documents"),
    ],
)
def test_no_usable_concepts_is_not_applicable(concepts: list[str | None], words: str) -> None:
    rows = corpus_concept_rows(np.random.default_rng(0).random((20, 3)), IDS[:20], concepts, CONFIG)
    CONCEPT_DETECTION.conform(rows, PARTITION)
    assert set(rows["status"]) == {"not_applicable"} and len(rows) == 3
    assert all(words in reason for reason in rows["reason"])
    assert rows["auroc"].null_count() == 3


def test_unscored_documents_are_left_out_and_zero_features_fail() -> None:
    scores = np.random.default_rng(0).random((300, 4))
    scores[::7] = np.nan
    scores[:, 2] = np.nan
    rows = corpus_concept_rows(scores, IDS, list(CONCEPTS), CONFIG, feature_ids=[10, 11, 12, 13])
    CONCEPT_DETECTION.conform(rows, PARTITION)
    assert rows["feature_id"].to_list() == [10, 11, 12, 13]
    assert rows["status"].to_list() == ["ok", "ok", "failed", "ok"]
    assert "zero" in rows["reason"][2]
    # The half is drawn over all documents; only those with a score are measured.
    has_score = np.arange(300) % 7 != 0
    measured = has_score & ~split_in_halves(IDS, CONCEPTS, CONFIG.seed)
    for feature, row in zip((0, 1, 3), rows.filter(status="ok").to_dicts(), strict=True):
        of_concept = np.array([c == row["concept"] for c in CONCEPTS])[measured]
        expected = auroc_matrix(scores[measured][:, [feature]], of_concept[:, None]).item()
        assert row["auroc"] == pytest.approx(expected)
    nothing = corpus_concept_rows(np.full((300, 2), np.nan), IDS, list(CONCEPTS), CONFIG)
    assert nothing["status"].to_list() == ["failed", "failed"]


HALF_LABELLED = [f"concept {i % 4}" if i % 8 < 4 else None for i in range(300)]


def aurocs_where_half_has_no_label(documents_without_concept: str) -> list[float]:
    """Of four features that fire on every fourth document each, half of which are labelled."""
    scores = np.random.default_rng(1).random((300, 4)) * 0.2
    scores[np.arange(300), np.arange(300) % 4] += 0.5
    config = DetectionConfig.model_validate(
        CONFIG.model_dump() | {"documents_without_concept": documents_without_concept}
    )
    rows = corpus_concept_rows(scores, IDS, HALF_LABELLED, config)
    CONCEPT_DETECTION.conform(rows, PARTITION)
    assert rows["concept"].to_list() == [f"concept {i}" for i in range(4)]
    halves = split_in_halves(IDS, HALF_LABELLED, CONFIG.seed)
    counts = documents_without_concept == "negatives"
    n_measured = sum(
        not chooses and (counts or concept is not None)
        for chooses, concept in zip(halves, HALF_LABELLED, strict=True)
    )
    assert (rows["n_positive"] + rows["n_negative"]).unique().to_list() == [n_measured]
    return rows["auroc"].to_list()


def test_documents_of_unknown_concept_are_no_negatives() -> None:
    assert aurocs_where_half_has_no_label("left_out") == [1.0] * 4
    # The control: counted as negatives, those of the feature's own concept are false ones.
    assert max(aurocs_where_half_has_no_label("negatives")) < 0.96


def test_background_documents_are_negatives_where_the_study_says_so() -> None:
    concepts = ["the only one"] * 10 + [None] * 10
    scores = np.random.default_rng(0).random((20, 3)) * 0.2
    scores[:10, 1] += 0.5
    left_out = corpus_concept_rows(scores, IDS[:20], concepts, CONFIG)
    assert set(left_out["status"]) == {"not_applicable"}
    assert all("documents_without_concept to negatives" in r for r in left_out["reason"])
    config = CONFIG.model_copy(update={"documents_without_concept": "negatives"})
    found = corpus_concept_rows(scores, IDS[:20], concepts, config)
    assert set(found["n_negative"]) == {5} and found["auroc"][1] == 1.0


def test_mean_lengths_of_both_sides_stand_beside() -> None:
    scores = np.random.default_rng(0).random((300, 1)) * 0.2
    is_of = np.array(CONCEPTS) == "concept 4"
    scores[is_of] += 0.5
    lengths = np.where(is_of, 30, 12)
    (row,) = corpus_concept_rows(scores, IDS, CONCEPTS, CONFIG, n_tokens=lengths).to_dicts()
    assert (row["mean_tokens_positive"], row["mean_tokens_negative"]) == (30.0, 12.0)
    assert row["label_kind"] is None
