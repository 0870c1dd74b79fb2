"""A small table for tests of the lake."""

import polars as pl

from assets.shared.schema import FEATURE_ID, FIT, SITE, Column, Table
from resources.lake_commit import Commit

TABLE = Table(
    name="toys",
    stage="shared",
    description="a table for tests",
    columns=(
        SITE,
        FIT,
        FEATURE_ID,
        Column("weights", "FLOAT[]", "a list"),
        Column("share", "DOUBLE", "a number", nullable=True),
    ),
    key=("site", "fit", "feature_id"),
    partition_by=("site", "fit"),
)
PARTITION = {"site": "demo:model@L15.mlp_hidden", "fit": "snmf-k004"}
COMMIT = Commit(asset="toys", partition="p", run_id="run-1", fingerprint="f")


def toys(n_rows: int = 3, share: float | None = 0.5) -> pl.DataFrame:
    """`n_rows` rows without the partition's columns."""
    return pl.DataFrame(
        {
            "feature_id": list(range(n_rows)),
            "weights": [[float(i), -1.0] for i in range(n_rows)],
            "share": [share] * n_rows,
        },
        schema_overrides={"share": pl.Float64},
    )
