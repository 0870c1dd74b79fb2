"""Tables of the hierarchy stage: which features make up which, and which share neurons."""

from __future__ import annotations

from assets.shared.schema import FEATURE_ID, FIT, SITE, Column, Table

FEATURE_EDGES = Table(
    name="feature_edges",
    stage="hierarchy",
    description="Edges of the tree of features: a child and a parent it is partly made of.",
    columns=(
        SITE,
        FIT,
        Column("level", "INTEGER", "Level of the child; 0: the features of the fit", minimum=0),
        Column("child_id", "INTEGER", "Row of the level's dictionary", minimum=0),
        Column("parent_id", "INTEGER", "Row of the next level's dictionary", minimum=0),
        Column(
            "weight",
            "FLOAT",
            "Coefficient of the parent in the child, both of unit norm; below the edge threshold "
            "there is no row",
            minimum=0,
        ),
    ),
    key=("site", "fit", "level", "child_id", "parent_id"),
    partition_by=("site", "fit"),
)

NEURON_OVERLAP = Table(
    name="neuron_overlap",
    stage="hierarchy",
    description="Pairs of features with neurons in common, each pair once.",
    columns=(
        SITE,
        FIT,
        FEATURE_ID,
        Column("other_feature_id", "INTEGER", "The other feature, of larger id", minimum=1),
        Column("n_shared", "INTEGER", "Neurons that both use", unit="neurons", minimum=1),
        Column(
            "jaccard",
            "DOUBLE",
            "Shared neurons by neurons that either uses",
            minimum=0,
            maximum=1,
        ),
        Column(
            "cosine",
            "DOUBLE",
            "Cosine of the two dictionary rows",
            minimum=-1.000001,
            maximum=1.000001,
        ),
    ),
    key=("site", "fit", "feature_id", "other_feature_id"),
    partition_by=("site", "fit"),
)

TABLES = (FEATURE_EDGES, NEURON_OVERLAP)
