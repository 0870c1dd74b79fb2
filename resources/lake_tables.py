"""Declared tables made and grown in DuckLake. Reading and writing rows is lake.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import duckdb

from assets.shared.schema import Table

CATALOG_NAME = "lake"


class LakeError(RuntimeError):
    """The lake could not be opened, read or written; the message says what to do."""


def quoted(value: str) -> str:
    """A SQL string literal."""
    return "'" + value.replace("'", "''") + "'"


def stored_columns(cursor: duckdb.DuckDBPyConnection) -> dict[str, dict[str, str]]:
    """Types of the columns of every table that is in the lake, by table and column."""
    found: dict[str, dict[str, str]] = {}
    rows = cursor.execute(
        "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE database_name = ?",
        [CATALOG_NAME],
    ).fetchall()
    for table, column, sql_type in rows:
        found.setdefault(table, {})[column] = sql_type
    return found


def create_tables(cursor: duckdb.DuckDBPyConnection, tables: Iterable[Table]) -> None:
    """Create declared tables, partitioned, with their descriptions as comments, or none of them."""
    cursor.execute("BEGIN")
    for table in tables:
        columns = ", ".join(
            f'"{c.name}" {stored_type(c.sql_type)}{"" if c.nullable else " NOT NULL"}'
            for c in table.columns
        )
        partition = ", ".join(f'"{name}"' for name in table.partition_by)
        cursor.execute(f'CREATE TABLE "{table.name}" ({columns})')
        cursor.execute(f'ALTER TABLE "{table.name}" SET PARTITIONED BY ({partition})')
        cursor.execute(f'COMMENT ON TABLE "{table.name}" IS {quoted(table.description)}')
        for column in table.columns:
            cursor.execute(
                f'COMMENT ON COLUMN "{table.name}"."{column.name}" IS {quoted(column.description)}'
            )
    cursor.execute("COMMIT")


def evolve_table(cursor: duckdb.DuckDBPyConnection, table: Table, found: Mapping[str, str]) -> None:
    """Add to a table what its declaration has gained; `found` maps stored columns to types.

    A column that was called otherwise is renamed, and keeps its rows. Raises LakeError where the
    two cannot be brought together without losing rows.
    """
    found = dict(found)
    for column in table.columns:
        is_renamed = column.formerly in found and column.name not in found
        stored = found.get((column.formerly or "") if is_renamed else column.name)
        if stored is None and not column.nullable:
            raise LakeError(
                f"table {table.name} in the lake lacks column {column.name!r}, which is declared "
                "not nullable; declare it nullable, so that old rows can stand"
            )
        if stored is None:
            cursor.execute(
                f'ALTER TABLE "{table.name}" ADD COLUMN "{column.name}" '
                f"{stored_type(column.sql_type)}"
            )
        elif stored != stored_type(column.sql_type):
            raise LakeError(
                f"table {table.name}, column {column.name}: stored as {stored}, declared "
                f"{column.sql_type}; give the new column another name"
            )
        elif is_renamed:
            cursor.execute(
                f'ALTER TABLE "{table.name}" RENAME COLUMN "{column.formerly}" TO "{column.name}"'
            )
            found[column.name] = found.pop(column.formerly or "")
    extra = set(found) - set(table.column_names)
    if extra:
        raise LakeError(
            f"table {table.name} in the lake has columns {sorted(extra)} that are not declared in "
            f"assets/{table.stage}/tables.py; was the lake written by a newer version?"
        )


def stored_type(sql_type: str) -> str:
    """The name by which DuckDB reports a declared type."""
    return sql_type.replace("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE")
