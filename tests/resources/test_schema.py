"""Declarations refuse what does not fit them before anything reaches the lake."""

import polars as pl
import pytest

from assets.shared.schema import SITE, Column, SchemaError, Table
from orchestration.data_dictionary import all_tables, render


def test_a_declaration_with_a_wrong_type_or_key_is_refused() -> None:
    with pytest.raises(SchemaError, match="declared TEXT"):
        Column("a", "TEXT", "x")
    with pytest.raises(SchemaError, match="in the key or partition but is no column"):
        Table("t", "shared", "x", (SITE,), ("site", "row"), ("site",))
    with pytest.raises(SchemaError, match="declares a column twice"):
        Table("t", "shared", "x", (SITE, SITE), ("site",), ("site",))


def test_conforming_orders_columns_and_casts_types() -> None:
    table = Table(
        "t",
        "shared",
        "x",
        (SITE, Column("n", "BIGINT", "x"), Column("w", "FLOAT", "x")),
        ("site", "n"),
        ("site",),
    )
    frame = table.conform(pl.DataFrame({"w": [1, 2], "n": [3, 4]}), {"site": "a"})
    assert frame.schema == {"site": pl.String, "n": pl.Int64, "w": pl.Float32}
    assert table.empty().schema == frame.schema
    with pytest.raises(SchemaError, match="partitioned by"):
        table.conform(frame, {"fit": "x"})


def test_every_table_and_column_is_described_once() -> None:
    tables = all_tables()
    names = [table.name for table in tables]
    assert len(set(names)) == len(names) >= 20
    for table in tables:
        assert table.description and table.stage
        assert all(len(column.description) > 5 for column in table.columns), table.name
        assert set(table.partition_by) <= set(table.key), table.name
    text = render()
    assert all(f"## `{name}`" in text for name in names)
