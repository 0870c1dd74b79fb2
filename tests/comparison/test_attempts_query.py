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
PARAMETERS = {"site": SITE, "judged_labels": ["input"], "suffixes": [""]}
Given = Mapping[Table, list[dict[str, Any]]]


def attempted(
    given: Given, n_features: int = 9, parameters: Mapping[str, Any] = PARAMETERS
) -> dict[str, int]:
    """Attempted features by metric, of one fit; each given row may leave columns out."""
    return {metric: n for metric, (n, _) in counted(given, n_features, parameters).items()}


def without_label(given: Given) -> dict[str, int]:
    """Features without a label by metric, where there are any."""
    return {metric: n for metric, (_, n) in counted(given).items() if n}


def counted(
    given: Given, n_features: int = 9, parameters: Mapping[str, Any] = PARAMETERS
) -> dict[str, tuple[int, int]]:
    """n_attempted and n_without_label by metric."""
    known: Given = {FEATURES: [{"feature_id": i} for i in range(n_features)]}
    empty: Given = {one.table: [] for one in ATTEMPTS}
    connection = duckdb.connect()
    for table, rows in {**empty, **known, **given}.items():
        schema = {column.name: column.polars_type for column in table.columns}
        whole = [{name: None for name in schema} | {"site": SITE, "fit": FIT} | r for r in rows]
        connection.register(table.name, pl.DataFrame(whole, schema=schema).to_arrow())
    found = connection.execute(ATTEMPTS_QUERY, parameters).fetchall()
    assert {fit for fit, *_ in found} <= {FIT}
    return {metric: (n_attempted, n_without) for _, metric, n_attempted, n_without in found}


def by_status(*statuses: str, **same: Any) -> list[dict[str, Any]]:
    """A row a feature, from 0, with these statuses."""
    return [{"feature_id": i, "status": status, **same} for i, status in enumerate(statuses)]


def test_a_failure_was_attempted_and_what_lies_beyond_a_cap_was_not() -> None:
    given: Given = {
        CONCEPT_DETECTION: [
            *by_status("ok", "partial", "failed", "ok", source="corpus"),
            *by_status(
                *("ok", "no_label", "no_label", "failed", "no_label", "not_attempted"),
                source="generated",
                label_kind="input",
            ),
        ],
        # The fifth lies beyond the cap of labels, the sixth beyond that of detection.
        LABELS: by_status("ok", "none", "failed", "ok", "not_attempted", "failed", kind="input"),
        LABEL_SCORES: by_status(
            *("ok", "not_attempted", "not_attempted", "failed", *["not_attempted"] * 2),
            kind="input",
            method="detection_choice",
            negatives="random",
            is_shuffled=False,
        ),
        STEERING_SCORES: [
            *by_status(
                *("ok", "not_attempted", "not_attempted", "failed", "not_attempted"),
                sign="0",
                label_kind="input",
            ),
            # A sign counts for whom it was tried on, whether or not its strength was found.
            *by_status("ok", "not_attempted", "not_attempted", sign="+", label_kind="input"),
            *by_status("not_reached", sign="-", label_kind="input"),
            # Judged on another label, which the metrics are not of.
            *by_status(*["ok"] * 6, sign="-", label_kind="output_minus"),
        ],
        ABLATION_EFFECTS: [
            row | {"concept": "sea" if row["feature_id"] else None}
            for row in by_status("ok", "inactive", "not_measured", ablation="zero", is_null=False)
        ],
        JUDGE_FREE_SCORES: [
            *by_status("ok", sign="+", label="days", label_kind="input"),
            *by_status("ok", "ok", "ok", "partial", "partial", sign="+", label_kind="input")[1:],
            # The label of what it promotes, which the metric is not of.
            *by_status("ok", "ok", "ok", "ok", sign="+", label="sea", label_kind="output"),
        ],
    }
    found = attempted(given)
    assert found == {
        "concept_auroc": 4,
        **dict.fromkeys(("s_cd", "generated_auroc"), 3),
        "label_auroc": 4,
        **dict.fromkeys(("steering_score", "steering_gain", "steering_gain_held_out"), 3),
        "steering_gain_mean": 3,
        **dict.fromkeys(("steering_gain_plus", "steering_gain_mean_plus"), 2),
        **dict.fromkeys(("steering_gain_minus", "steering_gain_mean_minus"), 1),
        **dict.fromkeys(("ablation_selectivity", "ablation_selectivity_null"), 2),
        # Of these one alone has a concept.
        **dict.fromkeys(("ablation_concept_selectivity", "ablation_concept_selectivity_null"), 1),
        "input_score": 5,
        "output_score": 5,
        "label_logprob_gain": 3,
    }
    assert set(found) == set(FEATURE_METRIC_NAMES)
    # The second feature, wherever a label is needed; of the sign - it was not steered.
    assert without_label(given) == dict.fromkeys(
        (
            *("s_cd", "generated_auroc", "label_auroc", "label_logprob_gain"),
            *("steering_score", "steering_gain", "steering_gain_held_out", "steering_gain_mean"),
            *("steering_gain_plus", "steering_gain_mean_plus"),
        ),
        1,
    )


@pytest.mark.parametrize(("status", "told"), [("failed", (10, 0)), ("none", (5, 5))])
def test_five_of_ten_features_without_a_label_are_told_from_a_cap(
    status: str, told: tuple[int, int]
) -> None:
    """Without a cap five values must not read as all that there could be."""
    labels = ["ok", status] * 5
    detected = ["ok" if one == "ok" else "no_label" for one in labels]
    steered = ["ok" if one == "ok" else "not_attempted" for one in labels]
    given: Given = {
        LABELS: by_status(*labels, kind="input"),
        CONCEPT_DETECTION: by_status(*detected, source="generated", label_kind="input"),
        STEERING_SCORES: by_status(*steered, sign="+", label_kind="input"),
        JUDGE_FREE_SCORES: [
            row | {"label": "days" if labels[row["feature_id"]] == "ok" else None}
            for row in by_status(*["ok"] * 10, sign="+", label_kind="input")
        ],
    }
    found = counted(given, n_features=10)
    for metric in ("s_cd", "generated_auroc", "steering_gain", "label_logprob_gain"):
        assert found[metric] == told
    assert found["output_score"] == (10, 0)


def test_of_two_signs_one_label_makes_an_attempt() -> None:
    kinds = {"output": ("none", "none", "failed"), "output_minus": ("ok", "none", "none")}
    given: Given = {
        LABELS: [row for kind, said in kinds.items() for row in by_status(*said, kind=kind)],
        STEERING_SCORES: [
            *by_status(*["not_attempted"] * 3, sign="+", label_kind="output"),
            *by_status("ok", *["not_attempted"] * 2, sign="-", label_kind="output_minus"),
        ],
    }
    parameters = PARAMETERS | {"judged_labels": ["output"]}
    found = counted(given, parameters=parameters)
    assert found["steering_gain"] == (2, 1)
    assert found["steering_gain_plus"] == (1, 2) and found["steering_gain_minus"] == (1, 2)


def test_each_judged_label_counts_what_was_judged_on_it() -> None:
    given: Given = {
        STEERING_SCORES: [
            *by_status("ok", "failed", sign="+", label_kind="input"),
            *by_status("ok", "ok", "failed", sign="+", label_kind="output"),
            *by_status("ok", sign="-", label_kind="output_minus"),
        ],
        JUDGE_FREE_SCORES: [
            *by_status("ok", "ok", sign="+", label="days", label_kind="input"),
            *by_status("ok", sign="+", label="sea", label_kind="output"),
            *by_status("ok", "ok", sign="-", label="sky", label_kind="output_minus"),
        ],
    }
    both = {"site": SITE, "judged_labels": ["input", "output"], "suffixes": ["", "_by_output"]}
    found = attempted(given, parameters=both)
    assert (found["steering_gain"], found["steering_gain_by_output"]) == (2, 3)
    assert (found["steering_gain_plus"], found["steering_gain_plus_by_output"]) == (2, 3)
    assert "steering_gain_minus" not in found and found["steering_gain_minus_by_output"] == 1
    assert (found["label_logprob_gain"], found["label_logprob_gain_by_output"]) == (2, 1)
    # Without a label in the name: as many features as were steered.
    assert found["output_score"] == 2
    first = {name: n for name, n in found.items() if not name.endswith("_by_output")}
    assert first == attempted(given)


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
