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

CONFIG = DetectionConfig(n_bootstrap=50, seed=3)
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
