"""Random rows that fit any declared table, for tests of what holds for every table."""

import random

import polars as pl

from assets.shared.schema import Column, Table


def any_rows(table: Table, n_rows: int, seed: int) -> pl.DataFrame:
    """`n_rows` rows without the partition's columns; keys are unique, other values random.

    One row where the partition is the whole key.
    """
    n_rows = min(n_rows, 1) if set(table.key) <= set(table.partition_by) else n_rows
    draw = random.Random(f"{table.name} {seed}")
    columns = [column for column in table.columns if column.name not in table.partition_by]
    return pl.DataFrame(
        {
            column.name: [
                _value(column, row, draw, column.name in table.key) for row in range(n_rows)
            ]
            for column in columns
        },
        schema={column.name: column.polars_type for column in columns},
    )


def _value(column: Column, row: int, draw: random.Random, is_key: bool) -> object:
    if is_key:
        return _scalar(column.sql_type, row + (column.minimum or 0))
    if column.nullable and draw.random() < 0.3:
        return None
    low = 0.0 if column.minimum is None else column.minimum
    high = low + 1.0 if column.maximum is None else column.maximum
    number = (
        draw.uniform(low, high)
        if _is_float(column.sql_type)
        else draw.randint(int(low), max(int(low), int(high)))
    )
    if column.sql_type.endswith("[]"):
        return [_scalar(column.sql_type[:-2], number) for _ in range(draw.randrange(3))]
    return _scalar(column.sql_type, number)


def _is_float(sql_type: str) -> bool:
    return sql_type.startswith(("DOUBLE", "FLOAT"))


def _scalar(sql_type: str, number: float) -> object:
    if sql_type == "VARCHAR":
        return f"value {number}"
    if sql_type == "BOOLEAN":
        return number > 0
    if sql_type == "TIMESTAMPTZ":
        return pl.Series([int(number * 1e6)]).cast(pl.Datetime("us", "UTC"))[0]
    return float(number) if _is_float(sql_type) else int(number)
