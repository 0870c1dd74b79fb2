"""What `features` takes of the other tables: scores at one KL for all, and detection's AUROC."""

from pathlib import Path

import pytest
from planted_lineage import FIT, PARTITIONS, SITE, PlantedLake, rows

from assets.catalogue.definitions import SOURCES
from assets.catalogue.features_query import FEATURES_QUERY
from assets.catalogue.tables import FEATURES
from assets.corpus.tables import DOCUMENTS
from assets.detection.tables import CONCEPT_DETECTION
from assets.steering.feature_tables import JUDGE_FREE_SCORES
from assets.steering.tables import CALIBRATIONS
from tests.catalogue.test_steering_columns import STUDY


def feature_rows(planted: PlantedLake, **changes: str) -> list[dict]:
    """The rows of features 3 and 8, as the catalogue would write them."""
    planted.lake.ensure_tables([DOCUMENTS, *SOURCES])
    frame = planted.lake.query(FEATURES_QUERY, {**PARTITIONS["fit"], **STUDY, **changes})
    return FEATURES.conform(frame, {"site": SITE, "fit": FIT}).sort("feature_id").to_dicts()


def planted_lake(root: Path) -> PlantedLake:
    planted = PlantedLake(root, has_ledger=False)
    planted.write("factorization", "fit", planted.fit_frames("cold", None))
    return planted


def test_scores_at_the_largest_target_are_not_those_at_the_largest_reached(tmp_path: Path) -> None:
    """Feature 3 reached 0.5 nats, feature 8 no more than 0.25; - went on to 1."""
    planted = planted_lake(tmp_path / "lake")
    reached = [
        (3, "+", 0.25, 0.1),
        (3, "+", 0.5, 0.2),
        (3, "-", 1.0, 0.9),
        (8, "+", 0.25, 0.6),
        (8, "+", 0.5, None),
    ]
    scored = [
        {
            "feature_id": feature_id,
            "sign": sign,
            "target_kl_nats": target,
            "label_kind": "input",
            "input_score": 0.5 if sign == "+" else 0.0,
            "output_score": score,
            "label_logprob_gain": score,
        }
        for feature_id, sign, target, score in reached
    ]
    planted.write("judge_free", "fit", {JUDGE_FREE_SCORES: rows(JUDGE_FREE_SCORES, *scored)})
    calibrated = [
        {
            "feature_id": feature_id,
            "sign": sign,
            "target_kl_nats": target,
            "token_logprob_gain": score,
        }
        for feature_id, sign, target, score in reached
    ]
    planted.write("calibrations", "fit", {CALIBRATIONS: rows(CALIBRATIONS, *calibrated)})
    three, eight = feature_rows(planted)
    scores = ("output_score", "label_logprob_gain", "token_logprob_gain")
    assert [three[name] for name in scores] == [0.2, 0.2, 0.2]
    assert [eight[name] for name in scores] == [None, None, None]
    # The same for all targets, so no target is missing.
    assert (three["input_score"], eight["input_score"]) == (0.5, 0.5)


def test_a_feature_has_one_row_and_the_gain_of_the_first_judged_label(tmp_path: Path) -> None:
    planted = planted_lake(tmp_path / "lake")
    gains = {("+", "input"): 0.2, ("+", "output"): 0.9, ("-", "output_minus"): 3.0}
    scored = [
        {
            "feature_id": 3,
            "sign": sign,
            "target_kl_nats": 0.5,
            "label_kind": kind,
            "output_score": 0.5,
            "label_logprob_gain": gain,
        }
        for (sign, kind), gain in gains.items()
    ]
    planted.write("judge_free", "fit", {JUDGE_FREE_SCORES: rows(JUDGE_FREE_SCORES, *scored)})
    three, _ = feature_rows(planted)
    assert (three["output_score"], three["label_logprob_gain"]) == (0.5, 0.2)
    three, _ = feature_rows(planted, judged_label="output")
    assert (three["output_score"], three["label_logprob_gain"]) == (0.5, 0.9)


def test_a_target_that_no_feature_reached_is_not_replaced_by_a_smaller_one(tmp_path: Path) -> None:
    planted = planted_lake(tmp_path / "lake")
    scored = [
        {"feature_id": feature_id, "sign": "+", "target_kl_nats": target, "output_score": score}
        for feature_id in (3, 8)
        for target, score in ((0.25, 0.3), (0.5, None))
    ]
    planted.write("judge_free", "fit", {JUDGE_FREE_SCORES: rows(JUDGE_FREE_SCORES, *scored)})
    assert [row["output_score"] for row in feature_rows(planted)] == [None, None]


def test_generated_auroc_is_there_where_s_cd_is_undefined(tmp_path: Path) -> None:
    planted = planted_lake(tmp_path / "lake")
    found = [
        {"feature_id": 3, "source": "generated", "s_cd": None, "auroc": 0.96, "status": "partial"},
        {"feature_id": 3, "source": "corpus", "s_cd": 0.5, "auroc": 0.7, "status": "ok"},
        {"feature_id": 8, "source": "generated", "s_cd": None, "auroc": None, "status": "failed"},
    ]
    planted.write("detection", "fit", {CONCEPT_DETECTION: rows(CONCEPT_DETECTION, *found)})
    three, eight = feature_rows(planted)
    assert (three["s_cd"], three["generated_auroc"], three["s_cd_status"]) == (
        None,
        0.96,
        "partial",
    )
    assert three["concept_auroc"] == pytest.approx(0.7)
    assert (eight["generated_auroc"], eight["s_cd_status"]) == (None, "failed")
