"""The lake tables of the faithfulness stage: one row a replacement, one row a feature.

Both are made of `faithfulness_documents`, one row a run of the model on a document, by which a
rerun finds the runs that it need not make.
"""

from __future__ import annotations

from assets.shared.row_reuse import ROW_FINGERPRINT
from assets.shared.schema import FEATURE_ID, FIT, SITE, Column, Table, status_columns

SEED = Column("seed", "BIGINT", "Seed of the sample of documents", minimum=0)

FAITHFULNESS_DOCUMENTS = Table(
    name="faithfulness_documents",
    stage="faithfulness",
    description="What faithfulness and feature_faithfulness are made of: one row a document of the "
    "sample and what was put in the place of its rows at the site. Sums over the document's "
    "predictions; where a feature is taken out, over those from its first active token on",
    columns=(
        SITE,
        FIT,
        Column("document_id", "VARCHAR", "Document of the sample"),
        Column(
            "replacement",
            "VARCHAR",
            "A replacement of faithfulness, or ablation (a - y z of one feature)",
        ),
        Column(
            "feature_id",
            "INTEGER",
            "Feature taken out; NULL where all rows are replaced",
            nullable=True,
            minimum=0,
        ),
        Column("n_tokens", "BIGINT", "Predictions summed over", minimum=1),
        Column(
            "n_tokens_active",
            "BIGINT",
            "Those of them made at tokens where the feature is active; NULL without a feature",
            nullable=True,
            minimum=1,
        ),
        Column("cross_entropy_base", "DOUBLE", "Sum, the model as it is", "nats", minimum=0),
        Column("cross_entropy_replaced", "DOUBLE", "Sum, with the replacement", "nats", minimum=0),
        Column(
            "delta_at_active",
            "DOUBLE",
            "The part of replaced - base at the feature's active tokens; NULL without a feature",
            "nats",
            nullable=True,
        ),
        Column("kl_nats", "DOUBLE", "Sum of KL(base‖replaced)", "nats", minimum=0),
        ROW_FINGERPRINT,
    ),
    key=("site", "fit", "document_id", "replacement", "feature_id"),
    partition_by=("site", "fit"),
)

FAITHFULNESS = Table(
    name="faithfulness",
    stage="faithfulness",
    description="What the model's next-token cross-entropy becomes when the site's rows are "
    "replaced, on a seeded sample of the study's documents; special prefix tokens keep their rows",
    columns=(
        SITE,
        FIT,
        Column(
            "replacement",
            "VARCHAR",
            "identity (the rows themselves), zero, mean (of the tokens the dictionary was fitted "
            "on), reconstruction (YZ + offset), reconstruction_keep_massive (the massive keep "
            "theirs)",
        ),
        Column("n_documents", "INTEGER", "Documents of the sample", minimum=1),
        Column("n_tokens", "BIGINT", "Tokens with a row and a next token to predict", minimum=1),
        Column("cross_entropy_base", "DOUBLE", "Mean, the model as it is", "nats", minimum=0),
        Column("cross_entropy_zero", "DOUBLE", "Mean, zeros in place of the rows", "nats"),
        Column("cross_entropy_replaced", "DOUBLE", "Mean, with this replacement", "nats"),
        Column(
            "recovered",
            "DOUBLE",
            "(zero − replaced) / (zero − base): identity 1, zero 0; NULL where zeroing the site "
            "does not raise the cross-entropy",
            nullable=True,
        ),
        Column(
            "recovered_low",
            "DOUBLE",
            "Lower end of the 95 % interval, t over documents of the linearized ratio; NULL of one "
            "document, without spread, or where what zeroing costs could be 0",
            nullable=True,
        ),
        Column("recovered_high", "DOUBLE", "Upper end of the same", nullable=True),
        Column("kl_nats", "DOUBLE", "Mean KL(base‖replaced)", "nats", minimum=0),
        SEED,
        *status_columns("ok, or undefined (no recovered share)"),
    ),
    key=("site", "fit", "replacement"),
    partition_by=("site", "fit"),
)

FEATURE_FAITHFULNESS = Table(
    name="feature_faithfulness",
    stage="faithfulness",
    description="What taking one feature out of the running model (a − y z where y > 0) does to "
    "its cross-entropy, in the documents of the sample where the feature is strongest. Counted are "
    "predictions from the feature's first active token on; those before cannot change",
    columns=(
        SITE,
        FIT,
        FEATURE_ID,
        Column(
            "n_documents_active",
            "INTEGER",
            "Documents of the sample in which it is active at a token that has a next one",
            minimum=0,
        ),
        Column("n_documents", "INTEGER", "Documents it was ablated in", minimum=0),
        Column(
            "n_tokens_active", "BIGINT", "Predictions made at its active tokens there", minimum=0
        ),
        Column("n_tokens", "BIGINT", "All predictions from its first active token on", minimum=0),
        Column(
            "delta_cross_entropy",
            "DOUBLE",
            "Mean change of the cross-entropy over n_tokens; above 0: the model needs the feature",
            "nats",
            nullable=True,
        ),
        Column(
            "delta_standard_error",
            "DOUBLE",
            "Its standard error, documents as units; NULL for one document",
            "nats",
            nullable=True,
            minimum=0,
        ),
        Column(
            "delta_at_active",
            "DOUBLE",
            "The same mean over the predictions at its active tokens",
            "nats",
            nullable=True,
        ),
        Column(
            "delta_elsewhere",
            "DOUBLE",
            "The same mean over the other, later predictions; NULL where there are none",
            "nats",
            nullable=True,
        ),
        Column("kl_nats", "DOUBLE", "Mean KL(base‖ablated)", "nats", nullable=True, minimum=0),
        Column(
            "share_of_zero_ablation",
            "DOUBLE",
            "Its summed change as a share of what zeroing the whole site adds in the same "
            "documents; NULL where that is nothing",
            nullable=True,
        ),
        SEED,
        *status_columns("ok, inactive (in the sample), or not_measured (beyond the study's cap)"),
    ),
    key=("site", "fit", "feature_id"),
    partition_by=("site", "fit"),
)

TABLES = (FAITHFULNESS_DOCUMENTS, FAITHFULNESS, FEATURE_FAITHFULNESS)
