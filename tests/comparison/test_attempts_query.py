"""Which features a metric was attempted for, from planted rows of every stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import duckdb
import polars as pl
import pytest
from any_rows import any_rows

from assets.ablation.tables import ABLATION_EFFECTS
from assets.catalogue.tables import FEATURES
from assets.comparison.attempts_query import ATTEMPTS_QUERY
from assets.comparison.definitions import ATTEMPTS
from assets.comparison.metrics import FEATURE_METRIC_NAMES
from assets.detection.tables import CONCEPT_DETECTION
from assets.labels.tables import LABEL_SCORES, LABELS
from assets.shared.schema import Table
from assets.steering.feature_tables import JUDGE_FREE_SCORES
from assets.steering.tables import STEERING_SCORES

SITE, FIT = "toy:tiny@L00.mlp_hidden", "snmf-k009"
PARAMETERS = {"site": SITE, "judged_label": "input"}
Given = Mapping[Table, list[dict[str, Any]]]


def attempted(given: Given, n_features: int = 9) -> dict[str, int]:
    """Attempted features by metric, of one fit; each given row may leave columns out."""
    known: Given = {FEATURES: [{"feature_id": i} for i in range(n_features)]}
    empty: Given = {one.table: [] for one in ATTEMPTS}
    connection = duckdb.connect()
    for table, rows in {**empty, **known, **given}.items():
        schema = {column.name: column.polars_type for column in table.columns}
        whole = [{name: None for name in schema} | {"site": SITE, "fit": FIT} | r for r in rows]
        connection.register(table.name, pl.DataFrame(whole, schema=schema).to_arrow())
    found = connection.execute(ATTEMPTS_QUERY, PARAMETERS).fetchall()
    assert {fit for fit, _, _ in found} <= {FIT}
    return {metric: n for _, metric, n in found}


def by_status(*statuses: str, **same: Any) -> list[dict[str, Any]]:
    """A row a feature, from 0, with these statuses."""
    return [{"feature_id": i, "status": status, **same} for i, status in enumerate(statuses)]


def test_a_failure_was_attempted_and_what_lies_beyond_a_cap_was_not() -> None:
    found = attempted(
        {
            CONCEPT_DETECTION: [
                *by_status("ok", "partial", "failed", "ok", source="corpus"),
                *by_status("ok", "partial", "failed", "not_attempted", source="generated"),
            ],
            LABELS: by_status("ok", "none", "failed", "ok", "not_attempted", kind="input"),
            LABEL_SCORES: by_status(
                *("ok", "not_attempted", "not_attempted", "failed", "not_attempted"),
                kind="input",
                method="detection_choice",
                negatives="random",
                is_shuffled=False,
            ),
            STEERING_SCORES: [
                *by_status("ok", "failed", "not_attempted", "ok", sign="0", label_kind="input"),
                # A sign counts for whom it was tried on, whether or not its strength was found.
                *by_status("ok", "failed", "not_attempted", sign="+", label_kind="input"),
                *by_status("not_reached", sign="-", label_kind="input"),
                # Judged on another label, which the metrics are not of.
                *by_status(*["ok"] * 6, sign="-", label_kind="output_minus"),
            ],
            ABLATION_EFFECTS: by_status(
                "ok", "inactive", "not_measured", ablation="zero", is_null=False
            ),
            JUDGE_FREE_SCORES: [
                *by_status("ok", "partial", "none", sign="+", label="days"),
                *by_status("ok", "ok", "ok", "partial", "partial", sign="+"),
            ],
        }
    )
    assert found == {
        "concept_auroc": 4,
        **dict.fromkeys(("s_cd", "generated_auroc"), 3),
        "label_auroc": 4,
        **dict.fromkeys(("steering_score", "steering_gain", "steering_gain_held_out"), 3),
        "steering_gain_mean": 3,
        **dict.fromkeys(("steering_gain_plus", "steering_gain_mean_plus"), 2),
        **dict.fromkeys(("steering_gain_minus", "steering_gain_mean_minus"), 1),
        **dict.fromkeys(("ablation_selectivity", "ablation_selectivity_null"), 2),
        "input_score": 5,
        "output_score": 5,
        "label_logprob_gain": 3,
    }
    assert set(found) == set(FEATURE_METRIC_NAMES)


def test_a_feature_counts_once_however_many_rows_it_has() -> None:
    texts = [
        {"feature_id": 1, "sign": sign, "text_index": i, "status": status, "label_kind": "input"}
        for sign, status in (("0", "ok"), ("+", "not_attempted"), ("-", "failed"))
        for i in range(3)
    ]
    assert attempted({STEERING_SCORES: texts})["steering_gain"] == 1


@pytest.mark.parametrize(
    "elsewhere",
    [
        {CONCEPT_DETECTION: by_status("not_applicable", source="corpus")},
        {CONCEPT_DETECTION: by_status("ok", source="corpus", site="toy:tiny@L01.mlp_hidden")},
        {ABLATION_EFFECTS: by_status("ok", ablation="mean", is_null=False)},
        {ABLATION_EFFECTS: by_status("ok", ablation="zero", is_null=True)},
        {JUDGE_FREE_SCORES: by_status("ok", sign="-", label="days")},
        # Labels that are not scored, or by another measure.
        {LABELS: by_status("ok", kind="input")},
        {
            LABELS: by_status("ok", kind="input"),
            LABEL_SCORES: [
                *by_status("ok", kind="output", method="detection"),
                *by_status("ok", kind="input", method="fuzzing"),
                *by_status("ok", kind="input", method="detection", negatives="hard"),
                *by_status("ok", kind="input", method="detection", is_shuffled=True),
            ],
        },
        # A feature that the catalogue does not have.
        {CONCEPT_DETECTION: [{"feature_id": 9, "source": "corpus", "status": "ok"}]},
    ],
)
def test_what_belongs_to_no_metric_of_the_site_counts_for_none(elsewhere: Given) -> None:
    assert attempted(elsewhere) == {}


def test_only_declared_columns_are_read() -> None:
    """Else a change of one that is not would leave the comparison as it was."""
    connection = duckdb.connect()
    for one in ATTEMPTS:
        assert one.columns is not None
        frame = any_rows(one.table, 3, 0).select(one.columns).with_columns(site=pl.lit(SITE))
        connection.register(one.table.name, frame.with_columns(fit=pl.lit(FIT)).to_arrow())
    known = any_rows(FEATURES, 3, 0).select("feature_id")
    known = known.with_columns(site=pl.lit(SITE), fit=pl.lit(FIT))
    connection.register(FEATURES.name, known.to_arrow())
    connection.execute(ATTEMPTS_QUERY, PARAMETERS)
