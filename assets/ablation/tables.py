"""The lake tables of the ablation stage: one row a run of the model, and what they come to."""

from __future__ import annotations

from assets.shared.row_reuse import ROW_FINGERPRINT
from assets.shared.schema import FEATURE_ID, FIT, SITE, Column, Table, status_columns

ABLATION = Column(
    "ablation",
    "VARCHAR",
    "What the coefficient is set to at all tokens but the massive: zero, or mean (over the corpus)",
)
IS_NULL = Column(
    "is_null",
    "BOOLEAN",
    "True: in the feature's place its direction with the neurons permuted, by the same "
    "coefficients and so of the same norm, measured at the same tokens",
)
SEED = Column("seed", "BIGINT", "Seed of documents and permutation", minimum=0)


def _interval(name: str, or_where: str | None = None) -> tuple[Column, Column]:
    """Both ends; `or_where` says when else than of one document, or alike ones, they are NULL."""
    low = (
        f"Lower end of the 95 % interval of {name}: t over documents; NULL of one document, or of "
        "documents all alike"
    )
    if or_where is not None:
        low += f", or where {or_where}"
    return (
        Column(f"{name}_low", "DOUBLE", low, nullable=True),
        Column(f"{name}_high", "DOUBLE", "Upper end of the same", nullable=True),
    )


ABLATION_RUNS = Table(
    name="ablation_runs",
    stage="ablation",
    description="What ablation_effects is made of: one row a feature, ablation and document. Sums "
    "over predictions: of all tokens, of strong ones (the coefficient near its largest) and of "
    "silent ones (where the feature does not fire)",
    columns=(
        SITE,
        FIT,
        FEATURE_ID,
        ABLATION,
        IS_NULL,
        Column("document_id", "VARCHAR", "Document that the model was run on"),
        Column("is_on", "BOOLEAN", "Whether it was drawn as one with strong tokens"),
        Column("is_off", "BOOLEAN", "Whether it was drawn among all documents, for off target"),
        Column("is_of_concept", "BOOLEAN", "Whether it was drawn as one of the feature's concept"),
        Column(
            "is_of_others",
            "BOOLEAN",
            "Whether it was drawn as one of other concepts; NULL in rows from before 0.7.0",
            nullable=True,
        ),
        Column("n_tokens", "BIGINT", "Predictions made at tokens that are not massive", minimum=0),
        Column("n_tokens_strong", "BIGINT", "Predictions made at strong tokens", minimum=0),
        Column("n_tokens_silent", "BIGINT", "Predictions made at silent tokens", minimum=0),
        Column("delta", "DOUBLE", "Change of the cross-entropy at n_tokens", "nats"),
        Column("kl", "DOUBLE", "KL(base‖ablated) at n_tokens", "nats", minimum=0),
        Column("delta_strong", "DOUBLE", "Change of the cross-entropy at strong tokens", "nats"),
        Column("delta_silent", "DOUBLE", "The same at silent tokens", "nats"),
        Column("kl_strong", "DOUBLE", "KL(base‖ablated) at strong tokens", "nats", minimum=0),
        Column("kl_silent", "DOUBLE", "The same at silent tokens", "nats", minimum=0),
        Column(
            "promoted_drop",
            "DOUBLE",
            "Log-probability that the feature's promoted tokens lose at strong tokens, the mean "
            "over them; NULL where it has no vocabulary projection",
            "nats",
            nullable=True,
        ),
        Column(
            "direct_effect",
            "DOUBLE",
            "Centred logit that the clean run's top token loses at strong tokens by the direct "
            "path alone",
            "logit",
        ),
        Column("total_effect", "DOUBLE", "The same by all paths, final norm frozen", "logit"),
        Column("total_effect_own_norm", "DOUBLE", "The same, the final norm recomputed", "logit"),
        ROW_FINGERPRINT,
    ),
    key=("site", "fit", "feature_id", "ablation", "is_null", "document_id"),
    partition_by=("site", "fit"),
)

ABLATION_EFFECTS = Table(
    name="ablation_effects",
    stage="ablation",
    description="What a feature's ablation does where the feature is strong (on target), where it "
    "is silent in the same documents (near), and at all tokens where it is not strong, of "
    "documents drawn among all (off target); what it does in documents of the feature's concept "
    "and of others; how much of its direct effect later layers repair; and beside each row that "
    "of a permuted null. A value that is not defined is NULL and named in the reason",
    columns=(
        SITE,
        FIT,
        FEATURE_ID,
        ABLATION,
        IS_NULL,
        Column(
            "set_to",
            "DOUBLE",
            "Coefficient that takes the place of the feature's own: 0, or its mean over the "
            "corpus to two digits; NULL where nothing was ablated",
            nullable=True,
            minimum=0,
        ),
        Column("n_documents_on", "INTEGER", "Documents with strong tokens it ran on", minimum=0),
        Column("n_documents_off", "INTEGER", "Documents drawn among all that it ran on", minimum=0),
        Column("n_tokens_on", "BIGINT", "Predictions made at strong tokens", minimum=0),
        Column(
            "n_tokens_near", "BIGINT", "Those at silent tokens of the same documents", minimum=0
        ),
        Column(
            "n_tokens_off",
            "BIGINT",
            "Those of n_documents_off at all tokens but the strong, whether it fires there or not",
            minimum=0,
        ),
        Column(
            "delta_on",
            "DOUBLE",
            "Mean change of the cross-entropy at strong tokens; above 0: the model needs it there",
            "nats",
            nullable=True,
        ),
        *_interval("delta_on"),
        Column("delta_near", "DOUBLE", "The same over n_tokens_near", "nats", nullable=True),
        Column("delta_off", "DOUBLE", "The same over n_tokens_off", "nats", nullable=True),
        *_interval("delta_off"),
        Column(
            "selectivity",
            "DOUBLE",
            "delta_on - delta_off; 0 or less: a token is harmed as much where the feature is not "
            "strong",
            "nats",
            nullable=True,
        ),
        *_interval("selectivity"),
        Column("kl_on", "DOUBLE", "Mean KL(base‖ablated) on target", "nats", True, minimum=0),
        Column("kl_near", "DOUBLE", "The same over n_tokens_near", "nats", True, minimum=0),
        Column("kl_off", "DOUBLE", "The same off target", "nats", nullable=True, minimum=0),
        Column(
            "concept",
            "VARCHAR",
            "The feature's concept of the corpus, that of concept_detection and features: chosen "
            "by its cosine with activations, on one half of the documents. NULL where the corpus "
            "names none that both halves can tell of, or ablation.n_documents_concept is 0",
            nullable=True,
        ),
        Column(
            "n_documents_concept",
            "INTEGER",
            "Documents of it it ran on, of the other half, drawn whether it fires there or not",
            minimum=0,
        ),
        Column("n_tokens_concept", "BIGINT", "All predictions made in them", minimum=0),
        Column(
            "delta_concept",
            "DOUBLE",
            "Mean change of the cross-entropy over n_tokens_concept",
            "nats",
            nullable=True,
        ),
        *_interval("delta_concept"),
        Column("kl_concept", "DOUBLE", "Mean KL(base‖ablated) there", "nats", True, minimum=0),
        Column(
            "n_documents_other",
            "INTEGER",
            "Documents of that half that are not of the concept, drawn likewise; NULL in rows from "
            "before 0.7.0",
            nullable=True,
            minimum=0,
        ),
        Column(
            "n_tokens_other",
            "BIGINT",
            "All predictions made in them; NULL in rows from before 0.7.0",
            nullable=True,
            minimum=0,
        ),
        Column(
            "delta_other",
            "DOUBLE",
            "Mean change of the cross-entropy over n_tokens_other",
            "nats",
            nullable=True,
        ),
        *_interval("delta_other"),
        Column("kl_other", "DOUBLE", "Mean KL(base‖ablated) there", "nats", True, minimum=0),
        Column(
            "concept_selectivity",
            "DOUBLE",
            "delta_concept - delta_other: what its documents lose more than others; 0 or less: no "
            "more",
            "nats",
            nullable=True,
        ),
        *_interval("concept_selectivity"),
        Column(
            "promoted_drop",
            "DOUBLE",
            "Mean log-probability that the first tokens of the feature's vocabulary projection "
            "(its own, also in the null's row) lose at strong tokens",
            "nats",
            nullable=True,
        ),
        *_interval("promoted_drop"),
        Column(
            "direct_effect",
            "DOUBLE",
            "Mean centred logit that the clean run's top token loses at strong tokens when the "
            "contribution is taken out of the stream that is unembedded, all later outputs and "
            "the final norm's scale as in the clean run",
            "logit",
            nullable=True,
        ),
        Column(
            "total_effect",
            "DOUBLE",
            "The same with all after the site recomputed but the final norm's scale",
            "logit",
            nullable=True,
        ),
        Column(
            "total_effect_own_norm",
            "DOUBLE",
            "The same with the final norm recomputed as well",
            "logit",
            nullable=True,
        ),
        Column(
            "self_repair",
            "DOUBLE",
            "1 - total_effect / direct_effect: above 0 later layers make up for a part, below 0 "
            "they add to the effect; NULL where the direct effect is next to nothing",
            nullable=True,
        ),
        *_interval("self_repair", "the interval of the direct effect holds 0"),
        SEED,
        *status_columns(
            "ok, inactive (no strong token before a document's last), or not_measured (beyond the "
            "study's cap)"
        ),
    ),
    key=("site", "fit", "feature_id", "ablation", "is_null"),
    partition_by=("site", "fit"),
)

TABLES = (ABLATION_RUNS, ABLATION_EFFECTS)
