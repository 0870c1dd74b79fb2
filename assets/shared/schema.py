"""Tables declared once: every column with its type, unit and description.

A `Table` is the only place where a lake table is described. From it come the DuckLake table,
the Dagster column schema, the asset checks, docs/data_dictionary.md and the validation of every
write (an undeclared, missing or wrongly typed column fails it). Reading and writing live in
resources/lake.py; nothing here touches a database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

SQL_TO_POLARS: Mapping[str, pl.DataType] = {
    "VARCHAR": pl.String(),
    "BIGINT": pl.Int64(),
    "INTEGER": pl.Int32(),
    "DOUBLE": pl.Float64(),
    "FLOAT": pl.Float32(),
    "BOOLEAN": pl.Boolean(),
    "TIMESTAMPTZ": pl.Datetime("us", "UTC"),
    "VARCHAR[]": pl.List(pl.String()),
    "DOUBLE[]": pl.List(pl.Float64()),
    "FLOAT[]": pl.List(pl.Float32()),
    "INTEGER[]": pl.List(pl.Int32()),
}


class SchemaError(ValueError):
    """A frame does not fit the declaration of the table it is written to."""


@dataclass(frozen=True)
class Column:
    """One column: SQL type, what it means, its unit ("" for none) and whether NULL is allowed.

    `is_volatile`: says something of the run that wrote it (time, price, history), not of the data,
    so it is no part of the table's data version. `formerly`: what it was called in older lakes,
    where it is then renamed.
    """

    name: str
    sql_type: str
    description: str
    unit: str = ""
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    is_volatile: bool = False
    formerly: str | None = None

    def __post_init__(self) -> None:
        if self.sql_type not in SQL_TO_POLARS:
            raise SchemaError(
                f"column {self.name!r} is declared {self.sql_type}; "
                f"expected one of {', '.join(SQL_TO_POLARS)}"
            )

    @property
    def polars_type(self) -> pl.DataType:
        return SQL_TO_POLARS[self.sql_type]


@dataclass(frozen=True)
class Table:
    """One lake table: its columns, its key, and the columns whose values make a partition."""

    name: str
    stage: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partition_by: tuple[str, ...]

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            raise SchemaError(f"table {self.name} declares a column twice: {names}")
        for column in (*self.key, *self.partition_by):
            if column not in names:
                raise SchemaError(
                    f"table {self.name}: {column!r} is in the key or partition but is no column"
                )

    @property
    def column_names(self) -> list[str]:
        return [column.name for column in self.columns]

    def empty(self) -> pl.DataFrame:
        """A frame of no rows with the declared columns."""
        return pl.DataFrame(schema={c.name: c.polars_type for c in self.columns})

    def conform(self, frame: pl.DataFrame, partition: Mapping[str, str]) -> pl.DataFrame:
        """`frame` with the partition's columns added, columns in declared order, types cast.

        Raises SchemaError, naming table and columns, when a column is missing or undeclared, a
        value does not fit its type, a NULL stands where none is allowed, a bound is broken, or
        two rows share a key.
        """
        missing_partition = set(self.partition_by) ^ set(partition)
        if missing_partition:
            raise SchemaError(
                f"table {self.name} is partitioned by {self.partition_by}; "
                f"found the partition {dict(partition)}"
            )
        frame = frame.with_columns(
            **{name: pl.lit(value, dtype=pl.String) for name, value in partition.items()}
        )
        found, declared = set(frame.columns), set(self.column_names)
        if found != declared:
            raise SchemaError(
                f"table {self.name}: undeclared columns {sorted(found - declared)}, missing "
                f"columns {sorted(declared - found)}; declare them in "
                f"assets/{self.stage}/tables.py or mend the frame"
            )
        try:
            frame = frame.select(pl.col(c.name).cast(c.polars_type) for c in self.columns)
        except pl.exceptions.PolarsError as error:
            raise SchemaError(f"table {self.name}: {error}") from error
        self._check_values(frame)
        return frame

    def _check_values(self, frame: pl.DataFrame) -> None:
        for column in self.columns:
            values = frame[column.name]
            if not column.nullable and values.null_count():
                raise SchemaError(
                    f"table {self.name}, column {column.name}: {values.null_count()} NULL of "
                    f"{len(values)} rows where none is allowed; give the rows a status and reason"
                )
            if values.dtype.is_float() and values.is_nan().any():
                raise SchemaError(
                    f"table {self.name}, column {column.name}: NaN; a value that could not be "
                    "computed is NULL with a status and reason"
                )
            for bound, is_broken, word in (
                (column.minimum, lambda v, b: v < b, "below"),
                (column.maximum, lambda v, b: v > b, "above"),
            ):
                if bound is not None and is_broken(values, bound).any():
                    raise SchemaError(
                        f"table {self.name}, column {column.name}: values {word} {bound} "
                        f"(found {values.min()} to {values.max()})"
                    )
        duplicates = len(frame) - frame.select(self.key).n_unique() if len(frame) else 0
        if duplicates:
            raise SchemaError(
                f"table {self.name}: {duplicates} rows repeat a key {self.key}; keys must be unique"
            )


SITE = Column(
    "site",
    "VARCHAR",
    "Activation site: study:model@L<layer>.<kind>, e.g. demo:smollm2-135m-instruct@L15.mlp_hidden",
)
FIT = Column("fit", "VARCHAR", "Fit: method and rank, e.g. snmf-k064")
FEATURE_ID = Column(
    "feature_id",
    "INTEGER",
    "Feature: unique within a site and fit, the same over refits",
    minimum=0,
)


def status_columns(statuses: str) -> tuple[Column, Column]:
    """The pair that every table with possible failures carries; `statuses` lists the values."""
    return (
        Column("status", "VARCHAR", f"{statuses}"),
        Column("reason", "VARCHAR", "Why the status is not ok, in words", nullable=True),
    )
