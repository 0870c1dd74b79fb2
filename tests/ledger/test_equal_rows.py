"""Rows are counted as the same by their content: for every table, whatever made them."""

from pathlib import Path

import polars as pl
import pytest
from any_rows import any_rows

from assets.labels.tables import LABELS
from assets.ledger.equal_rows import content_columns, n_equal_rows
from assets.shared.schema import Table
from orchestration.data_dictionary import all_tables
from resources.lake import Lake
from resources.lake_commit import Commit

N_ROWS = 7


def brute_force(before: pl.DataFrame, now: pl.DataFrame, table: Table) -> int:
    chosen = content_columns(table)
    rows = [str(row) for row in before.select(chosen).iter_rows()]
    return sum(str(row) in rows for row in now.select(chosen).iter_rows())


@pytest.mark.parametrize("table", all_tables(), ids=lambda table: table.name)
def test_rows_that_went_through_the_lake_are_the_same_and_changed_ones_are_not(
    table: Table, tmp_path: Path
) -> None:
    lake = Lake(tmp_path / "lake")
    rows = any_rows(table, N_ROWS, seed=0)
    partition = {name: "p" for name in table.partition_by}
    lake.replace({table: rows}, partition, Commit(table.name, "p", "run-1"))
    stored = lake.read(table, partition)
    assert n_equal_rows(stored, rows.reverse(), table) == len(rows)
    assert n_equal_rows(stored, rows.clear(), table) == 0
    assert n_equal_rows(stored.clear(), rows, table) == 0

    others = any_rows(table, N_ROWS, seed=1)
    mixed = pl.concat([rows.head(3), others.tail(-3)])
    assert n_equal_rows(stored, mixed, table) == brute_force(stored, mixed, table)


@pytest.mark.parametrize("table", all_tables(), ids=lambda table: table.name)
def test_a_change_in_any_column_of_content_makes_another_row(table: Table) -> None:
    rows = any_rows(table, N_ROWS, seed=0)
    for column in table.columns:
        if column.name in table.partition_by:
            continue
        values = rows[column.name]
        # One row says nothing there any more; what the others say stays.
        first_known = values.is_not_null().arg_max()
        if first_known is None or values.null_count() == len(values):
            continue
        is_it = pl.int_range(pl.len()) == first_known
        other = rows.with_columns(pl.when(~is_it).then(column.name).alias(column.name))
        expected = len(rows) - (column.name in content_columns(table))
        assert n_equal_rows(rows, other, table) == expected, column.name


def test_lists_are_told_apart_by_their_values() -> None:
    (column,) = [column for column in LABELS.columns if column.sql_type.endswith("[]")][:1]
    rows = any_rows(LABELS, 1, seed=0)
    values = [["a", "b"], ["ab"], ["b", "a"], [], [""], None]
    frames = [
        rows.with_columns(pl.Series(column.name, [one], dtype=column.polars_type)) for one in values
    ]
    equal = [[n_equal_rows(one, other, LABELS) for one in frames] for other in frames]
    assert equal == [[int(i == j) for i in range(len(values))] for j in range(len(values))]
