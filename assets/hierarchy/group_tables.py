"""Tables of groups of features: members, core and exclusive neurons, steering by them."""

from __future__ import annotations

from assets.shared.row_reuse import ROW_FINGERPRINT
from assets.shared.schema import FEATURE_ID, FIT, SITE, Column, Table, status_columns
from assets.steering.tables import STEERED_AT

GROUP_NAME = Column(
    "group_name", "VARCHAR", "Group of the study's hierarchy.groups, or a parent concept"
)

GROUP_MEMBERS = Table(
    name="group_members",
    stage="hierarchy",
    description=(
        "Groups of concepts, and the feature of each: all of a group found together, so that no "
        "feature stands for two concepts and the sum of what they are chosen by is the largest "
        "there is"
    ),
    columns=(
        SITE,
        FIT,
        GROUP_NAME,
        Column("concept", "VARCHAR", "Member concept"),
        Column(
            "is_steered",
            "BOOLEAN",
            "The study names the group, so group_steering has it; others are parent concepts of "
            "the corpus",
        ),
        Column("feature_id", "INTEGER", "The concept's feature", nullable=True, minimum=0),
        Column(
            "chosen_by",
            "VARCHAR",
            "The study's hierarchy.members_by: concept_auroc or promoted_tokens",
        ),
        Column(
            "auroc_chosen",
            "DOUBLE",
            "P(a document of the concept scores above another), on the half to choose on",
            nullable=True,
            minimum=0,
            maximum=1,
        ),
        Column(
            "auroc", "DOUBLE", "The same on the other half", nullable=True, minimum=0, maximum=1
        ),
        Column(
            "promotion",
            "DOUBLE",
            "Logit of the first token of a blank and the concept in the feature's vocabulary "
            "projection, less the mean over the vocabulary; NULL where members are chosen by AUROC",
            unit="standard deviations over the vocabulary",
            nullable=True,
        ),
        *status_columns("ok or failed"),
    ),
    key=("site", "fit", "group_name", "concept"),
    partition_by=("site", "fit"),
)

NEURON_GROUPS = Table(
    name="neuron_groups",
    stage="hierarchy",
    description=(
        "Core and exclusive neurons of each group's features; neurons that some but not enough "
        "members share have no row"
    ),
    columns=(
        SITE,
        FIT,
        GROUP_NAME,
        FEATURE_ID,
        Column("concept", "VARCHAR", "The member's concept"),
        Column("neuron", "INTEGER", "Neuron of the site", minimum=0),
        Column(
            "role",
            "VARCHAR",
            "core: core_share of the members use it with one sign; exclusive: only this one does",
        ),
        Column("weight", "FLOAT", "Weight of the neuron in the member"),
        Column("n_users", "INTEGER", "Members that use it", unit="features", minimum=1),
        Column("n_members", "INTEGER", "Members of the group", unit="features", minimum=1),
    ),
    key=("site", "fit", "group_name", "feature_id", "neuron"),
    partition_by=("site", "fit"),
)

GROUP_STEERING = Table(
    name="group_steering",
    stage="hierarchy",
    description=(
        "What steering by a group's core or exclusive neurons does to the log-probability of each "
        "concept's token at the end of the prompts, beside the same weights on random neurons"
    ),
    columns=(
        SITE,
        FIT,
        GROUP_NAME,
        Column("intervention", "VARCHAR", "core, exclusive, null_core or null_exclusive"),
        Column(
            "steered",
            "VARCHAR",
            "Member concept whose exclusive neurons are added; the group's name for its core",
        ),
        Column("draw", "INTEGER", "0, or which draw of random neurons", minimum=0),
        Column("seed", "BIGINT", "Seed of the draw; NULL where nothing is drawn", nullable=True),
        Column("n_neurons", "INTEGER", "Neurons of the direction", minimum=0),
        Column("measured_concept", "VARCHAR", "Concept whose token is measured"),
        Column("is_member", "BOOLEAN", "Whether it belongs to the group"),
        Column("token", "VARCHAR", "First token of a blank and the concept"),
        Column(
            "delta_logprob",
            "DOUBLE",
            "Mean over prompts of log p_steered - log p_base of the token",
            unit="nats",
            nullable=True,
        ),
        Column(
            "delta_logprob_standard_error",
            "DOUBLE",
            "Its standard error over the prompts; NULL for one prompt",
            unit="nats",
            nullable=True,
            minimum=0,
        ),
        Column(
            "base_logprob",
            "DOUBLE",
            "Mean over prompts of log p_base of the token",
            unit="nats",
            nullable=True,
            maximum=0,
        ),
        Column("n_prompts", "INTEGER", "Prompts measured on", minimum=0),
        Column("target_kl_nats", "DOUBLE", "KL(base‖steered) asked for", unit="nats", minimum=0),
        Column(
            "strength",
            "DOUBLE",
            "Multiple of the unit direction, so the L2 norm of what is added at `steered_at`; NULL "
            "where the target was not reached",
            unit="activation",
            nullable=True,
            minimum=0,
        ),
        Column(
            "achieved_kl_nats",
            "DOUBLE",
            "KL at the strength, or the closest one found",
            unit="nats",
            nullable=True,
        ),
        Column("is_converged", "BOOLEAN", "The achieved KL is within the tolerance of the target"),
        *status_columns("ok; shared_token; not_reached; failed; not_attempted (no such neurons)"),
        STEERED_AT,
        ROW_FINGERPRINT,
    ),
    key=("site", "fit", "group_name", "intervention", "steered", "draw", "measured_concept"),
    partition_by=("site", "fit"),
)

GROUP_TABLES = (GROUP_MEMBERS, NEURON_GROUPS)
STEERING_TABLES = (GROUP_STEERING,)
