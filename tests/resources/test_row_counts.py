"""The catalog's figures give the rows that a count over every partition finds."""

from pathlib import Path

import polars as pl
from toy_table import COMMIT, TABLE, toys

from resources.lake import Lake
from resources.row_counts import rows_by_partition


def counted(lake: Lake) -> dict[tuple[str, tuple[str, ...]], int]:
    rows = lake.query(f"SELECT site, fit, count(*) FROM {TABLE.name} GROUP BY ALL")
    return {(TABLE.name, (site, fit)): n_rows for site, fit, n_rows in rows.iter_rows()}


def test_figures_hold_after_writing_deleting_and_adding(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    lake.ensure_tables([TABLE])
    assert rows_by_partition(lake) == counted(lake) == {}
    sites = ("demo:model@L15.mlp_hidden", "other:model@L2.mlp_out", "a b=c%:m@L1.mlp_out")
    for n_rows, site in enumerate(sites, start=3):
        for fit in ("snmf-k004", "pca-k002"):
            lake.replace({TABLE: toys(n_rows)}, {"site": site, "fit": fit}, COMMIT)
    lake.replace({TABLE: toys(9)}, {"site": sites[0], "fit": "pca-k002"}, COMMIT)
    found = rows_by_partition(lake)
    assert found == counted(lake) and sorted(found.values()) == [3, 4, 4, 5, 5, 9]

    cursor = lake.connect()
    cursor.execute(f"DELETE FROM {TABLE.name} WHERE feature_id = 1")
    cursor.execute(f"DELETE FROM {TABLE.name} WHERE feature_id = 2 AND fit = 'pca-k002'")
    cursor.execute(f"DELETE FROM {TABLE.name} WHERE site = ?", [sites[1]])
    assert rows_by_partition(lake) == counted(lake)
    assert len(counted(lake)) == 4
    more = toys(2).with_columns(
        site=pl.lit(sites[2]), fit=pl.lit("snmf-k004"), feature_id=pl.lit(90) + pl.col("feature_id")
    )
    lake.append({TABLE: more}, COMMIT)
    assert rows_by_partition(lake) == counted(lake)
    cursor.execute("CREATE TABLE unpartitioned (a INTEGER)")
    cursor.execute("INSERT INTO unpartitioned VALUES (1)")
    assert rows_by_partition(lake) == counted(lake)
    cursor.execute(f"DELETE FROM {TABLE.name}")
    assert rows_by_partition(lake) == counted(lake) == {}
