"""Tables of what a fit consists of: dictionary, coefficients, and the encoder where it has one."""

from __future__ import annotations

from assets.shared.schema import FEATURE_ID, FIT, SITE, Column, Table

DICTIONARY = Table(
    name="dictionary",
    stage="factorization",
    description="The dictionary Z, one row a non-zero weight of a feature on a neuron.",
    columns=(
        SITE,
        FIT,
        FEATURE_ID,
        Column("neuron", "INTEGER", "Neuron of the site", minimum=0),
        Column("weight", "FLOAT", "Weight; a feature's weights have unit L2 norm"),
    ),
    key=("site", "fit", "feature_id", "neuron"),
    partition_by=("site", "fit"),
)

ENCODERS = Table(
    name="encoders",
    stage="factorization",
    description="What gives new tokens their coefficients where the dictionary alone does not "
    "(sae, transcoder, kmeans), one row a feature: potential = weights · x + bias for a row x of "
    "the site that the method reads (transcoder: mlp_in); the n_active features of largest "
    "potential fire, at max(0, potential) or as is_projection says. No rows for other methods "
    "and for public SAEs.",
    columns=(
        SITE,
        FIT,
        FEATURE_ID,
        Column("weights", "FLOAT[]", "Weight of each neuron of the site that is read"),
        Column("bias", "FLOAT", "Added to the weighted sum"),
        Column("n_active", "INTEGER", "At most so many features fire at a token", minimum=1),
        Column(
            "is_projection",
            "BOOLEAN",
            "The coefficient is max(0, weights · x / norm of weights) in place of the potential "
            "(kmeans)",
        ),
    ),
    key=("site", "fit", "feature_id"),
    partition_by=("site", "fit"),
)

COEFFICIENTS = Table(
    name="coefficients",
    stage="factorization",
    description="The coefficients Y, one row a token and feature with a coefficient above zero.",
    columns=(
        SITE,
        FIT,
        Column("row", "BIGINT", "Token: row of the site's activations", minimum=0),
        FEATURE_ID,
        Column("coefficient", "FLOAT", "Coefficient, in the units of the activations", minimum=0),
    ),
    key=("site", "fit", "row", "feature_id"),
    partition_by=("site", "fit"),
)
