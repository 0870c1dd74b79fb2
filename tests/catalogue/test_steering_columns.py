"""The catalogue's steering columns: the poolings of `steering_summaries`; and ablation."""

from pathlib import Path

import polars as pl
import pytest
from planted_lineage import FIT, PARTITIONS, SITE, PlantedLake, rows

from assets.ablation.tables import ABLATION_EFFECTS
from assets.catalogue.definitions import SOURCES
from assets.catalogue.features_query import FEATURES_QUERY
from assets.catalogue.tables import FEATURES
from assets.corpus.tables import DOCUMENTS
from assets.steering.feature_tables import STEERING_SUMMARIES
from assets.steering.tables import CALIBRATIONS, STEERING_SCORES
from tests.steering.test_summaries import scores_of, summarized

STUDY = {
    "study": "mini",
    "model": "tiny",
    "layer": 1,
    "site_kind": "mlp_hidden",
    "method": "snmf",
    "is_control": False,
    "judged_label": "input",
}


def test_a_lucky_text_is_not_the_steering_score(tmp_path: Path) -> None:
    def lucky(sign: str, target: float, index: int) -> float | None:
        """+ at 0.5 has one judged text, a 2; - at 0.25 scores 1 throughout."""
        if (sign, target) == ("+", 0.5):
            return 2.0 if index == 0 else None
        return 1.0 if (sign, target) == ("-", 0.25) else 0.5

    planted = PlantedLake(tmp_path / "lake", has_ledger=False)
    planted.write("factorization", "fit", planted.fit_frames("cold", None))
    scores = scores_of(lucky, lambda *_: 0.25, n_texts=6)
    # Judged on its output labels too, by which it scores more: they are not the first.
    scores = pl.concat(
        [
            scores,
            *(
                scores_of(lambda *_: 1.75, lambda *_: 0.5, n_texts=6, kind=kind).filter(
                    pl.col("sign").is_in(["0", sign])
                )
                for sign, kind in (("+", "output"), ("-", "output_minus"))
            ),
        ]
    )
    given = rows(STEERING_SCORES, *scores.to_dicts())
    planted.write("steering", "fit", {STEERING_SCORES: given})
    summaries = rows(STEERING_SUMMARIES, *summarized(scores).to_dicts())
    planted.write("steering_summaries", "fit", {STEERING_SUMMARIES: summaries})
    calibration = {"feature_id": 3, "sign": "-", "target_kl_nats": 0.25, "strength": 7.0}
    planted.write("calibrations", "fit", {CALIBRATIONS: rows(CALIBRATIONS, calibration)})
    effects = [
        {
            "feature_id": 3,
            "ablation": ablation,
            "is_null": is_null,
            "selectivity": selectivity,
            "concept_selectivity": selectivity / 10,
        }
        for ablation, is_null, selectivity in (
            ("zero", False, 0.5),
            ("zero", True, 0.1),
            ("mean", False, 0.3),
        )
    ]
    planted.write("ablation", "fit", {ABLATION_EFFECTS: rows(ABLATION_EFFECTS, *effects)})
    planted.lake.ensure_tables([DOCUMENTS, *SOURCES])
    frame = planted.lake.query(FEATURES_QUERY, {**PARTITIONS["fit"], **STUDY})
    found = FEATURES.conform(frame, {"site": SITE, "fit": FIT})
    steered, other = found.sort("feature_id").to_dicts()
    assert (steered["feature_id"], steered["status"]) == (3, "judged")
    assert (steered["steering_sign"], steered["steering_target_kl_nats"]) == ("-", 0.25)
    assert (steered["steering_score"], steered["n_steered_texts"]) == (1.0, 6)
    assert (steered["steering_base_score"], steered["steering_gain"]) == pytest.approx((0.25, 0.75))
    assert steered["steering_strength"] == 7.0
    # The best setting on one half of the texts is that of the other half too.
    assert steered["steering_gain_held_out"] == pytest.approx(0.75)
    # By sign, the lucky text of + at 0.5 being no setting to choose: 0.5 - 0.25 and 1 - 0.25.
    best = ("steering_gain_plus", "steering_gain_minus")
    assert [steered[name] for name in best] == pytest.approx([0.25, 0.75])
    # Means take every judged text: + has 12 of 0.5 and one of 2, - has 12 of 0.5 and 6 of 1.
    means = ("steering_gain_mean", "steering_gain_mean_plus", "steering_gain_mean_minus")
    expected = [20 / 31 - 0.25, 8 / 13 - 0.25, 12 / 18 - 0.25]
    assert [steered[name] for name in means] == pytest.approx(expected)
    assert [other[name] for name in (*best, *means)] == [None] * 5
    assert (steered["ablation_selectivity"], other["ablation_selectivity"]) == (0.5, None)
    assert (steered["ablation_selectivity_null"], other["ablation_selectivity_null"]) == (0.1, None)
    of_concept = ("ablation_concept_selectivity", "ablation_concept_selectivity_null")
    assert [steered[name] for name in of_concept] == pytest.approx([0.05, 0.01])
    assert other["steering_score"] is None and other["steering_gain"] is None
    of_output = {**PARTITIONS["fit"], **STUDY, "judged_label": "output"}
    judged = planted.lake.query(FEATURES_QUERY, of_output).filter(feature_id=3).to_dicts()[0]
    assert (judged["steering_score"], judged["steering_gain"]) == (1.75, 1.25)
