"""How many rows every partition of every table holds, by the catalog's own figures.

DuckLake records the rows of each data file and of each file of deletions, and the values of the
partition that it belongs to (its specification, tables ducklake_data_file, ducklake_delete_file,
ducklake_file_partition_value). One query over them takes the place of opening every file.
"""

from __future__ import annotations

from resources.lake import Lake
from resources.retention import METADATA

Counts = dict[tuple[str, tuple[str, ...]], int]


def rows_by_partition(lake: Lake) -> Counts:
    """Rows by table and values of its partition's columns, in their order; no entry: no rows.

    Files that someone added without partition values are left out, so that too few rows can be
    counted, never too many.
    """
    rows = lake.query(
        f"""
        WITH parts AS (
            SELECT data_file_id, list(partition_value ORDER BY partition_key_index) AS partition
            FROM {METADATA}.ducklake_file_partition_value GROUP BY data_file_id
        ), deleted AS (
            SELECT data_file_id, sum(delete_count) AS n_deleted
            FROM {METADATA}.ducklake_delete_file
            WHERE end_snapshot IS NULL GROUP BY data_file_id
        )
        SELECT table_name, partition, sum(record_count - coalesce(n_deleted, 0))::BIGINT
        FROM {METADATA}.ducklake_data_file AS file
        JOIN {METADATA}.ducklake_table AS named USING (table_id)
        JOIN parts USING (data_file_id)
        LEFT JOIN deleted USING (data_file_id)
        WHERE file.end_snapshot IS NULL AND named.end_snapshot IS NULL
        GROUP BY ALL
        """
    )
    return {(table, tuple(values)): n_rows for table, values, n_rows in rows.iter_rows()}
