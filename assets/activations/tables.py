"""The lake tables of the activations room."""

from __future__ import annotations

from assets.shared.schema import SITE, Column, Table

TOKENS = Table(
    name="tokens",
    stage="activations",
    description="Every token whose activation was captured, in the order of the activation rows; "
    "special prefix tokens (BOS) and padding have no row",
    columns=(
        SITE,
        Column("row", "BIGINT", "Row of the site's activation matrix", minimum=0),
        Column("document_id", "VARCHAR", "Document the token stands in"),
        Column(
            "position",
            "INTEGER",
            "Index in the document's tokens, special prefix counted",
            minimum=0,
        ),
        Column("token_id", "INTEGER", "Id in the subject model's vocabulary", minimum=0),
        Column("token", "VARCHAR", "The token's text, leading space kept"),
        Column("row_norm", "FLOAT", "L2 norm of the activation row", minimum=0),
        Column(
            "is_massive",
            "BOOLEAN",
            "Whether the row norm exceeds massive_norm_ratio times the site's median; such rows "
            "(attention sinks) are left out of fits by default",
        ),
    ),
    key=("site", "row"),
    partition_by=("site",),
)

ACTIVATION_SHARDS = Table(
    name="activation_shards",
    stage="activations",
    description="The Parquet files that hold a site's activation rows, in row order",
    columns=(
        SITE,
        Column("shard", "INTEGER", "Number of the shard within the site", minimum=0),
        Column("path", "VARCHAR", "File name in the lake's folder of shards"),
        Column("sha256", "VARCHAR", "Checksum of the file, 64 hex digits"),
        Column("dtype", "VARCHAR", "float16, or float32 where a value exceeds 65,504"),
        Column("n_rows", "BIGINT", "Activation rows in the file", minimum=0),
        Column(
            "first_row", "BIGINT", "Row of the site's matrix that the file starts with", minimum=0
        ),
        Column("width", "INTEGER", "Length of an activation row", minimum=1),
        Column("n_bytes", "BIGINT", "Size of the file", unit="bytes", minimum=0),
        Column("n_dropped_special", "BIGINT", "Special prefix tokens run but not kept", minimum=0),
    ),
    key=("site", "shard"),
    partition_by=("site",),
)

ACTIVATION_STATS = Table(
    name="activation_stats",
    stage="activations",
    description="Size and sparsity of a site's activation rows by the token's position; groups "
    "without tokens have no row",
    columns=(
        SITE,
        Column("position_group", "VARCHAR", "Positions taken together: all, 0, 1, 2-7, 8+"),
        Column("n_tokens", "BIGINT", "Tokens in the group", minimum=1),
        Column("norm_mean", "DOUBLE", "Mean L2 norm of a row", minimum=0),
        Column("norm_median", "DOUBLE", "Median L2 norm of a row", minimum=0),
        Column("norm_max", "DOUBLE", "Largest L2 norm of a row", minimum=0),
        Column("n_massive", "BIGINT", "Tokens flagged is_massive", minimum=0),
        Column(
            "share_energy_massive",
            "DOUBLE",
            "Share of the group's squared norm that its massive tokens carry; NULL where all "
            "rows are zero",
            nullable=True,
            minimum=0,
            maximum=1,
        ),
        Column("share_positive", "DOUBLE", "Share of values above zero", minimum=0, maximum=1),
        Column(
            "share_near_zero",
            "DOUBLE",
            "Share of values at most 1/1000 as large as their row's largest, in absolute value",
            minimum=0,
            maximum=1,
        ),
    ),
    key=("site", "position_group"),
    partition_by=("site",),
)

TABLES = (TOKENS, ACTIVATION_SHARDS, ACTIVATION_STATS)
