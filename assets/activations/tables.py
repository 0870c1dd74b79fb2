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
        Column(
            "hoyer_sparsity",
            "DOUBLE",
            "Mean over rows of (√d − |a|₁/|a|₂) / (√d − 1): 0 for equal values, 1 for a single "
            "one; NULL where all rows are zero",
            nullable=True,
            minimum=-1e-5,
            maximum=1.00001,
        ),
        Column(
            "neurons_for_half_energy",
            "DOUBLE",
            "Mean over rows of the fewest neurons that carry half of the row's squared norm; NULL "
            "where all rows are zero",
            unit="neurons",
            nullable=True,
            minimum=1,
        ),
        Column(
            "share_neurons_lazy",
            "DOUBLE",
            "Share of neurons that are lazy (neuron_stats); NULL but for the group all",
            nullable=True,
            minimum=0,
            maximum=1,
        ),
        Column(
            "share_neurons_dead",
            "DOUBLE",
            "Share of neurons active on no token (neuron_stats); NULL but for the group all",
            nullable=True,
            minimum=0,
            maximum=1,
        ),
    ),
    key=("site", "position_group"),
    partition_by=("site",),
)

NEURON_STATS = Table(
    name="neuron_stats",
    stage="activations",
    description="How much each neuron of a site is used, over the tokens that aren't massive "
    "(the lazy neurons of arXiv 2210.06313). Active on a token: absolute value above a tenth of "
    "the row's largest",
    columns=(
        SITE,
        Column("neuron", "INTEGER", "Neuron of the site", minimum=0),
        Column("n_tokens", "BIGINT", "Tokens counted", minimum=1),
        Column("share_active", "DOUBLE", "Share of tokens it is active on", minimum=0, maximum=1),
        Column(
            "share_positive", "DOUBLE", "Share of tokens it is above zero on", minimum=0, maximum=1
        ),
        Column("mean_abs", "DOUBLE", "Mean absolute value", "activation", minimum=0),
        Column("max_abs", "DOUBLE", "Largest absolute value", "activation", minimum=0),
        Column(
            "energy_share",
            "DOUBLE",
            "Share of all neurons' squared values that is its own",
            minimum=0,
            maximum=1,
        ),
        Column(
            "kurtosis",
            "DOUBLE",
            "Fourth central moment over the squared variance (3 for a normal distribution); NULL "
            "where it never changes",
            nullable=True,
        ),
        Column("is_lazy", "BOOLEAN", "Active on fewer than 5 % of the tokens"),
        Column("is_dead", "BOOLEAN", "Active on none"),
    ),
    key=("site", "neuron"),
    partition_by=("site",),
)

TABLES = (TOKENS, ACTIVATION_SHARDS, ACTIVATION_STATS, NEURON_STATS)
