"""Tables of the hierarchy stage's tree: which features make up which, and which share neurons.

Those of groups of features are group_tables.py.
"""

from __future__ import annotations

from assets.hierarchy.group_tables import GROUP_TABLES, STEERING_TABLES
from assets.shared.schema import FEATURE_ID, FIT, SITE, Column, Table

FEATURE_EDGES = Table(
    name="feature_edges",
    stage="hierarchy",
    description="Edges of the tree of features: a child and a parent it is partly made of.",
    columns=(
        SITE,
        FIT,
        Column("level", "INTEGER", "Level of the child; 0: the features of the fit", minimum=0),
        Column(
            "child_id",
            "INTEGER",
            "feature_id at level 0, parent_features.parent_id of the level before above",
            minimum=0,
        ),
        Column("parent_id", "INTEGER", "parent_features.parent_id of the same level", minimum=0),
        Column(
            "weight",
            "FLOAT",
            "Coefficient of the parent in the child; the child that the weights make of the "
            "parents has unit norm, as the parents have; below the edge threshold there is no row",
            minimum=0,
        ),
        Column(
            "weight_before",
            "FLOAT",
            "The same before fine-tuning; equal to weight where nothing was fine-tuned",
            minimum=0,
        ),
    ),
    key=("site", "fit", "level", "child_id", "parent_id"),
    partition_by=("site", "fit"),
)

PARENT_FEATURES = Table(
    name="parent_features",
    stage="hierarchy",
    description=(
        "The parents' dictionary rows, one row a non-zero weight on a neuron: fine-tuned where the "
        "study says so; below the topmost level they are what the levels above make of them"
    ),
    columns=(
        SITE,
        FIT,
        Column("level", "INTEGER", "Level of the children that it is a parent of", minimum=0),
        Column("parent_id", "INTEGER", "Parent, unique within a level", minimum=0),
        Column("neuron", "INTEGER", "Neuron of the site", minimum=0),
        Column("weight", "FLOAT", "Weight; a parent's weights have unit L2 norm"),
    ),
    key=("site", "fit", "level", "parent_id", "neuron"),
    partition_by=("site", "fit"),
)


def _share(name: str, description: str) -> Column:
    return Column(name, "DOUBLE", description, nullable=True, maximum=1.000001)


HIERARCHY_LEVELS = Table(
    name="hierarchy_levels",
    stage="hierarchy",
    description=(
        "How well each level of the tree fits, before and after the joint fine-tuning, beside the "
        "same recursion on permuted dictionaries (is_null), which knows no shared neurons"
    ),
    columns=(
        SITE,
        FIT,
        Column("level", "INTEGER", "Level of the children; 0: the features of the fit", minimum=0),
        Column(
            "permutation",
            "INTEGER",
            "0: the fit's dictionary; from 1 on: one with each row's neurons permuted",
            minimum=0,
        ),
        Column("is_null", "BOOLEAN", "Whether this is a permuted dictionary"),
        Column("n_children", "INTEGER", "Rows that the level explains", minimum=1),
        Column("n_parents", "INTEGER", "Rank of the level", minimum=1),
        Column(
            "keep_fraction", "DOUBLE", "Share of neurons a parent may use", minimum=0, maximum=1
        ),
        _share(
            "children_explained_variance",
            "Mean over the children of the squared cosine with what the parents make of them, as "
            "the recursion left it",
        ),
        _share(
            "children_explained_variance_tuned",
            "The same after fine-tuning; 1 above level 0, where children are made of their parents",
        ),
        _share(
            "explained_variance",
            "1 - |A - YZ|² / |A|² with Z what this level makes of the features, Y solved for it, "
            "over n_tokens_used tokens that are not massive; NULL for permuted dictionaries",
        ),
        _share(
            "explained_variance_tuned",
            "The same after fine-tuning: one tree, hence one number for all its levels",
        ),
        Column(
            "n_tokens_used",
            "BIGINT",
            "Tokens that explained_variance and the fine-tuning are of; fewer than n_tokens: a "
            "random sample (by seed), as many as the fit's max_memory_gib holds, and no fewer than "
            "features; NULL for permuted dictionaries",
            unit="tokens",
            nullable=True,
            minimum=1,
        ),
        Column(
            "n_tokens",
            "BIGINT",
            "The site's tokens that are not massive; NULL for permuted dictionaries",
            unit="tokens",
            nullable=True,
            minimum=1,
        ),
        Column(
            "edge_concentration",
            "DOUBLE",
            "Mean over children with edges of the strongest edge by the sum of edges, as the "
            "recursion left them",
            nullable=True,
            minimum=0,
            maximum=1.000001,
        ),
        Column(
            "edges_per_child",
            "DOUBLE",
            "Mean number of edges from the threshold on, as the recursion left them",
            unit="edges",
            minimum=0,
        ),
        Column("n_iter", "INTEGER", "Iterations of the level's best fit", minimum=0),
        Column("is_converged", "BOOLEAN", "Whether that fit converged"),
        Column("stop_reason", "VARCHAR", "Why it ended, in words"),
        Column("seed", "BIGINT", "Seed of the recursion; of the permutation for a null", minimum=0),
        Column(
            "tuning_objective_before",
            "DOUBLE",
            "½|A/c - YZ|² + λ ΣY + ½ρ|X - Z|² of the whole tree before fine-tuning, Y solved; Z is "
            "what it makes of the features X, c the mean row norm of A, ρ the anchor's weight",
            nullable=True,
            minimum=0,
        ),
        Column("tuning_objective_after", "DOUBLE", "The same afterwards", nullable=True, minimum=0),
        Column("tuning_n_iter", "INTEGER", "Iterations of the fine-tuning", nullable=True),
        Column("tuning_is_converged", "BOOLEAN", "Whether it converged", nullable=True),
        Column(
            "tuning_stop_reason",
            "VARCHAR",
            "Why it ended, or why nothing was fine-tuned",
        ),
    ),
    key=("site", "fit", "level", "permutation"),
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

TREE_TABLES = (FEATURE_EDGES, PARENT_FEATURES, HIERARCHY_LEVELS, NEURON_OVERLAP)
TABLES = (*TREE_TABLES, *GROUP_TABLES, *STEERING_TABLES)
