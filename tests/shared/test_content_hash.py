"""Data versions: the same content has the same, whatever wrote it; other content has others."""

import random
from dataclasses import replace

import polars as pl
import pytest
from any_rows import any_rows

from assets.shared.content_hash import column_versions, data_version
from assets.shared.schema import SQL_TO_POLARS, Column, SchemaError, Table
from orchestration.data_dictionary import all_tables

VALUES = {
    "VARCHAR": ["a", "b"],
    "BIGINT": [1, 2],
    "INTEGER": [1, 2],
    "DOUBLE": [0.5, 1.5],
    "FLOAT": [0.5, 1.5],
    "BOOLEAN": [True, False],
    "TIMESTAMPTZ": [0, 10],
    "VARCHAR[]": [["a"], ["b", "c"]],
    "DOUBLE[]": [[0.5], [1.5, 2.5]],
    "FLOAT[]": [[0.5], [1.5, 2.5]],
    "INTEGER[]": [[1], [2, 3]],
}
# What a careless hash takes for the absence of a value.
EMPTY = {"VARCHAR": "", "BOOLEAN": False, "VARCHAR[]": [], "DOUBLE[]": [], "FLOAT[]": []}
EMPTY |= {"INTEGER[]": []}


def table_of(sql_type: str, **options: bool) -> Table:
    return Table(
        name="toys",
        stage="shared",
        description="",
        columns=(
            Column("number", "INTEGER", "key"),
            Column("value", sql_type, "value", nullable=True, **options),
        ),
        key=("number",),
        partition_by=(),
    )


def versions(sql_type: str, values: list) -> dict[str, str]:
    table = table_of(sql_type)
    numbers = pl.Series("number", range(len(values)), dtype=pl.Int32)
    column = pl.Series("value", values, dtype=SQL_TO_POLARS[sql_type])
    return column_versions(pl.DataFrame([numbers, column]), table)


@pytest.mark.parametrize("sql_type", VALUES)
def test_every_type_tells_values_nulls_and_empties_apart(sql_type: str) -> None:
    first, second = VALUES[sql_type]
    variants = [
        [first, second],
        [second, first],
        [first, first],
        [first, None],
        [None, first],
        [first, EMPTY.get(sql_type, 0)],
        [first],
        [],
    ]
    found = [versions(sql_type, values)["value"] for values in variants]
    assert len(set(found)) == len(set(map(repr, variants)))
    assert found == [versions(sql_type, values)["value"] for values in variants]


def test_lists_are_told_apart_by_where_they_end_and_what_is_missing_in_them() -> None:
    variants = [[["a"], ["b"]], [["a", "b"], []], [["ab"], []], [["a", None], ["b"]]]
    assert len({versions("VARCHAR[]", values)["value"] for values in variants}) == len(variants)


def test_values_count_as_the_declared_type_holds_them() -> None:
    table = table_of("DOUBLE")
    numbers = pl.Series("number", [0, 1], dtype=pl.Int64)
    frames = [
        pl.DataFrame([numbers, pl.Series("value", [0.5, 0.1], dtype=pl.Float32)]),
        pl.DataFrame([numbers, pl.Series("value", [0.5, 0.1], dtype=pl.Float64)]),
    ]
    as_written = [column_versions(frame, table) for frame in frames]
    read_back = [column_versions(table.conform(frame, {}), table) for frame in frames]
    assert as_written == read_back
    assert as_written[0] != as_written[1]  # 0.1 of 32 bits is another number


def test_two_types_of_one_number_are_two_contents() -> None:
    assert versions("INTEGER", [1])["value"] != versions("BIGINT", [1])["value"]


@pytest.mark.parametrize("table", all_tables(), ids=lambda table: table.name)
def test_the_order_of_rows_does_not_matter_and_volatile_columns_do_not(table: Table) -> None:
    partition = {name: "p" for name in table.partition_by}
    rows = any_rows(table, 7, 0)
    frame = table.conform(rows, partition)
    order = random.Random(0).sample(range(len(frame)), len(frame))
    before = column_versions(frame, table)
    assert column_versions(frame[order], table) == before
    stable = {column.name for column in table.columns if not column.is_volatile}
    assert before.keys() == stable
    # Without the partition's columns, as stages hand frames over.
    assert column_versions(rows, table).items() <= before.items()


def test_a_volatile_column_makes_no_version_and_a_changed_column_only_its_own() -> None:
    frame = pl.DataFrame({"number": [1, 2], "value": ["a", "b"]})
    frame = frame.with_columns(pl.col("number").cast(pl.Int32))
    plain, volatile = table_of("VARCHAR"), table_of("VARCHAR", is_volatile=True)
    edited = frame.with_columns(value=pl.lit("c"))
    before, after = column_versions(frame, plain), column_versions(edited, plain)
    assert before["number"] == after["number"] and before["value"] != after["value"]
    assert column_versions(frame, volatile) == column_versions(edited, volatile)
    assert data_version(before, ["number"]) == data_version(after, ["number"])
    assert data_version(before) != data_version(after)
    with pytest.raises(KeyError):
        data_version(before, ["nothing"])


def test_nan_never_comes_so_far() -> None:
    table = replace(table_of("DOUBLE"), key=("number",))
    frame = pl.DataFrame({"number": [1], "value": [float("nan")]})
    with pytest.raises(SchemaError, match="NaN"):
        table.conform(frame, {})
