"""Changes of the catalogue: planted ones are found, nothing else is, and back again undoes them."""

import polars as pl
import pytest
from any_rows import any_rows
from polars.testing import assert_frame_equal

from assets.catalogue.changes import (
    CHANGES,
    IDENTITY,
    KIND_OF_COLUMN,
    LABELS,
    NOT_COMPARED,
    NOT_SCORES,
    SCORES,
    STATES,
    changes_between,
    partition_changes,
)
from assets.catalogue.tables import CATALOGUE_CHANGES, FEATURES

PARTITION = {"site": "demo:model@L15.mlp_hidden", "fit": "snmf-k006"}


def features(n_rows: int = 6, seed: int = 0) -> pl.DataFrame:
    return FEATURES.conform(any_rows(FEATURES, n_rows, seed), PARTITION)


def with_value(frame: pl.DataFrame, feature_id: int, **values: object) -> pl.DataFrame:
    return frame.with_columns(
        pl.when(feature_id=feature_id)
        .then(pl.lit(value, frame.schema[name]))
        .otherwise(pl.col(name))
        .alias(name)
        for name, value in values.items()
    )


def test_equal_versions_have_no_changes_and_the_rows_fit_their_table() -> None:
    same = changes_between(features(), features())
    assert same.is_empty()
    CATALOGUE_CHANGES.conform(same.with_columns(from_snapshot=pl.lit(None, pl.Int64)), PARTITION)


def test_each_kind_of_change_is_found_with_old_and_new_value() -> None:
    base = features()
    for name, value in (("label", "days"), ("status", "labelled"), ("s_cd", 0.25)):
        base = base.with_columns(pl.lit(value, base.schema[name]).alias(name))
    new = with_value(base, 1, label="weekdays", status="judged")
    new = with_value(new, 2, s_cd=0.75, concept_auroc=None)
    old = with_value(base, 2, concept_auroc=0.5)
    lost, added = (
        old.filter(feature_id=5),
        new.filter(feature_id=5).with_columns(feature_id=pl.lit(9, pl.Int32)),
    )
    found = changes_between(old, pl.concat([new.filter(pl.col("feature_id") != 5), added]))
    columns = ["change", "feature_id", "column_name", "old_value", "new_value", "difference"]
    assert found.select(columns).rows() == [
        ("added", 9, "label", None, "days", None),
        ("lost", lost["feature_id"][0], "label", "days", None, None),
        ("relabelled", 1, "label", "days", "weekdays", None),
        ("rescored", 2, "concept_auroc", "0.5", None, None),
        ("rescored", 2, "s_cd", "0.25", "0.75", 0.5),
        ("restated", 1, "status", "labelled", "judged", None),
    ]
    assert found["site"].unique().to_list() == [PARTITION["site"]]


@pytest.mark.parametrize("column", KIND_OF_COLUMN)
@pytest.mark.parametrize("is_null_before", [True, False])
def test_a_value_that_comes_or_goes_is_a_change(column: str, is_null_before: bool) -> None:
    filled = features(3).with_columns(
        pl.lit(1.0 if column in SCORES else "x", FEATURES.empty().schema[column]).alias(column)
    )
    emptied = with_value(filled, 0, **{column: None})
    old, new = (emptied, filled) if is_null_before else (filled, emptied)
    (row,) = changes_between(old, new).to_dicts()
    assert (row["change"], row["column_name"]) == (KIND_OF_COLUMN[column], column)
    assert row["old_value" if is_null_before else "new_value"] is None
    assert row["difference"] is None


def test_the_smallest_difference_of_a_score_counts_and_is_written_out_in_full() -> None:
    old = features(1).with_columns(s_cd=pl.lit(0.1))
    new = old.with_columns(s_cd=pl.lit(0.1 + 2**-56))
    (row,) = changes_between(old, new).to_dicts()
    assert float(row["new_value"]) - float(row["old_value"]) == row["difference"] == 2**-56


def test_random_versions_agree_with_a_brute_force_comparison_and_their_reverse() -> None:
    opposite = {"added": "lost", "lost": "added"}
    for seed in range(10):
        old, new = features(8, seed), features(8, seed + 100)
        old, new = old.filter(pl.col("feature_id") != seed % 8), new.head(7 - seed % 3)
        found = changes_between(old, new)
        by_id = [{row["feature_id"]: row for row in frame.to_dicts()} for frame in (old, new)]
        expected = {("added", i, "") for i in by_id[1].keys() - by_id[0].keys()}
        expected |= {("lost", i, "") for i in by_id[0].keys() - by_id[1].keys()}
        expected |= {
            (kind, i, column)
            for i in by_id[0].keys() & by_id[1].keys()
            for column, kind in KIND_OF_COLUMN.items()
            if by_id[0][i][column] != by_id[1][i][column]
        }
        is_whole = found["change"].is_in(["added", "lost"])
        names = found.select(
            "change",
            "feature_id",
            pl.when(is_whole).then(pl.lit("")).otherwise(pl.col("column_name")),
        )
        assert set(names.iter_rows()) == expected
        assert len(names) == len(expected)
        back = changes_between(new, old).rename(
            {"old_value": "new_value", "new_value": "old_value"}
        )
        back = back.with_columns(
            pl.col("change").replace(opposite), difference=-pl.col("difference")
        )
        order = ["change", "feature_id", "column_name"]
        assert_frame_equal(
            back.select(found.columns).sort(order), found.sort(order), check_exact=True
        )
        assert found["change"].to_list() == sorted(found["change"], key=CHANGES.index)


def test_features_of_other_fits_are_not_confused() -> None:
    other = FEATURES.conform(any_rows(FEATURES, 6, 0), {**PARTITION, "fit": "pca-k006"})
    both = pl.concat([features(), other])
    found = changes_between(both, with_value(both, 3, label="new").filter(fit="pca-k006"))
    counts = found.group_by("fit", "change").len().sort("fit").rows()
    assert counts == [("pca-k006", "relabelled", 1), ("snmf-k006", "lost", 6)]


def test_a_run_that_changes_nothing_leaves_the_last_changes() -> None:
    first = partition_changes(FEATURES.empty(), features(), None, CATALOGUE_CHANGES.empty())
    assert first["change"].unique().to_list() == ["added"]
    assert first["from_snapshot"].null_count() == len(first) == 6
    stored = CATALOGUE_CHANGES.conform(first, PARTITION)
    again = partition_changes(features(), features(), 7, stored)
    assert again.equals(stored)
    changed = partition_changes(features(), with_value(features(), 0, label="x"), 7, stored)
    assert changed["from_snapshot"].to_list() == [7]


def test_every_number_and_status_of_a_feature_is_compared_or_named_as_no_score() -> None:
    columns = FEATURES.empty().schema
    assert set(NOT_SCORES) <= set(columns)
    assert {name for name, kind in columns.items() if kind == pl.Float64} == {*SCORES, *NOT_SCORES}
    assert {"steering_gain", "concept_auroc", "label_auroc", "s_cd"} <= set(SCORES)


def test_every_text_of_a_feature_is_a_label_a_state_its_identity_or_named_as_not_compared() -> None:
    texts = [column.name for column in FEATURES.columns if column.sql_type == "VARCHAR"]
    assert sorted([*LABELS, *STATES, *IDENTITY, *NOT_COMPARED]) == sorted(texts)
    assert {"status", "reason", "label_status", "label_reason", "s_cd_status"} <= set(STATES)
    assert {"label", "output_label", "combined_label", "token_summary"} <= set(LABELS)


def test_what_is_the_same_for_a_whole_partition_or_left_out_is_no_change() -> None:
    old = features(4)
    for name in ("study", "model", "site_kind", "method", *NOT_COMPARED, *NOT_SCORES):
        new = old.with_columns(pl.lit(None, old.schema[name]).alias(name))
        assert changes_between(old, new).is_empty(), name


@pytest.mark.parametrize("column", ["s_cd", "combined_label", "label_reason"])
def test_a_column_that_the_older_rows_lack_is_left_out_and_the_others_are_compared(
    column: str,
) -> None:
    old = features().with_columns(pl.lit("days").alias("label"))
    new = features(6, 1).with_columns(pl.lit("days").alias("label"))
    whole = changes_between(old, with_value(new, 2, label="weekdays"))
    found = changes_between(old.drop(column), with_value(new, 2, label="weekdays"))
    assert column in whole["column_name"].to_list()
    assert_frame_equal(found, whole.filter(pl.col("column_name") != column))
    nothing_else = old.with_columns(
        pl.lit("x" if column != "s_cd" else 1.0, old.schema[column]).alias(column)
    )
    assert changes_between(old.drop(column), nothing_else).is_empty()
