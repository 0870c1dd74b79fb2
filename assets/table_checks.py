"""Asset checks that follow from a table's declaration, evaluated on what is in the lake.

For every table: its columns are the declared ones, its keys are unique, no bound is broken, and
the partition holds as many rows as were handed over. They run right after each write.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import dagster as dg

from assets.shared.schema import Table
from resources.lake import Lake
from resources.lake_tables import stored_type

SCHEMA_CHECK = "schema_as_declared"
KEY_CHECK = "keys_unique"
BOUNDS_CHECK = "values_in_bounds"
ROWS_CHECK = "rows_complete"


def _bounds(table: Table) -> list[str]:
    broken = []
    for column in table.columns:
        if column.minimum is not None:
            broken.append(f'"{column.name}" < {column.minimum}')
        if column.maximum is not None:
            broken.append(f'"{column.name}" > {column.maximum}')
    return broken


def check_specs(table: Table) -> list[dg.AssetCheckSpec]:
    """The checks that a table's declaration asks for."""
    specs = [
        dg.AssetCheckSpec(
            SCHEMA_CHECK, asset=table.name, description="columns and types in the lake"
        ),
        dg.AssetCheckSpec(KEY_CHECK, asset=table.name, description=f"key: {', '.join(table.key)}"),
        dg.AssetCheckSpec(
            ROWS_CHECK, asset=table.name, description="rows read back = rows written"
        ),
    ]
    if _bounds(table):
        specs.append(
            dg.AssetCheckSpec(
                BOUNDS_CHECK, asset=table.name, description=" or ".join(_bounds(table))
            )
        )
    return specs


def check_table(
    lake: Lake, table: Table, partition: Mapping[str, str], n_written: int
) -> Iterator[dg.AssetCheckResult]:
    """Results of the declared checks for one partition of a table, read from the lake."""
    condition = " AND ".join(f'"{name}" = ?' for name in table.partition_by)
    values = [partition[name] for name in table.partition_by]
    stored = dict(
        lake.query(
            "SELECT column_name, data_type FROM duckdb_columns() "
            "WHERE database_name = 'lake' AND table_name = ?",
            [table.name],
        ).iter_rows()
    )
    declared = {column.name: stored_type(column.sql_type) for column in table.columns}
    differing = {name for name in declared | stored if declared.get(name) != stored.get(name)}
    yield dg.AssetCheckResult(
        check_name=SCHEMA_CHECK,
        asset_key=table.name,
        passed=not differing,
        metadata={"differing_columns": sorted(differing)},
    )
    key = ", ".join(f'"{name}"' for name in table.key)
    broken = _bounds(table)
    is_broken = " OR ".join(broken) or "false"
    n_rows, n_keys, n_broken = lake.query(
        f"SELECT count(*), count(DISTINCT ({key})), count(*) FILTER ({is_broken}) "
        f'FROM "{table.name}" WHERE {condition}',
        values,
    ).row(0)
    yield dg.AssetCheckResult(
        check_name=KEY_CHECK,
        asset_key=table.name,
        passed=n_rows == n_keys,
        metadata={"n_repeated": n_rows - n_keys},
    )
    yield dg.AssetCheckResult(
        check_name=ROWS_CHECK,
        asset_key=table.name,
        passed=n_rows == n_written,
        metadata={"n_written": n_written, "n_found": n_rows},
    )
    if broken:
        yield dg.AssetCheckResult(
            check_name=BOUNDS_CHECK,
            asset_key=table.name,
            passed=n_broken == 0,
            metadata={"n_out_of_bounds": n_broken},
        )
