"""Tables that compare fits: with the fit before, with other ranks, with other seeds.

What a single fit gives is in tables.py.
"""

from __future__ import annotations

from assets.shared.schema import FEATURE_ID, FIT, SITE, Column, Table, status_columns

FEATURE_MATCHES = Table(
    name="feature_matches",
    stage="factorization",
    description="How the features of the last fit go on those of the fit before. Each feature is "
    "kept or new, each feature before is kept or lost; split and merged rows stand beside these "
    "and say what became of what.",
    columns=(
        SITE,
        FIT,
        Column("match", "INTEGER", "Running number within the site and fit", minimum=0),
        Column("kind", "VARCHAR", "kept, new, lost, split or merged"),
        Column("feature_id", "INTEGER", "Feature now; NULL for lost", nullable=True, minimum=0),
        Column(
            "previous_feature_id",
            "INTEGER",
            "Feature before; NULL for new",
            nullable=True,
            minimum=0,
        ),
        Column(
            "cosine",
            "DOUBLE",
            "Cosine of the two dictionary rows; for new and lost, with the nearest feature on the "
            "other side (NULL where there is none)",
            nullable=True,
            minimum=-1.000001,
            maximum=1.000001,
        ),
        Column(
            "previous_snapshot",
            "BIGINT",
            "Lake snapshot of the fit before; NULL for a first fit",
            nullable=True,
            minimum=0,
            is_volatile=True,
        ),
    ),
    key=("site", "fit", "match"),
    partition_by=("site", "fit"),
)

RANK_CHOICES = Table(
    name="rank_choices",
    stage="factorization",
    description="What each candidate of `rank: auto` showed, and which was chosen; no rows for a "
    "fixed rank. Fits are made on two disjoint halves of the documents.",
    columns=(
        SITE,
        FIT,
        Column("rank", "INTEGER", "Candidate", unit="features", minimum=1),
        Column("n_seeds", "INTEGER", "Random halvings of the documents, two fits each", minimum=1),
        Column("seed", "BIGINT", "Seed of the halvings and fits", minimum=0),
        Column("n_tokens", "BIGINT", "Tokens in both halves together", minimum=1),
        Column(
            "held_out_explained_variance",
            "DOUBLE",
            "Mean explained variance of the half that a fit did not see; NULL where no fit was "
            "made",
            nullable=True,
            maximum=1,
        ),
        Column(
            "held_out_standard_error",
            "DOUBLE",
            "Its standard error over the fits",
            nullable=True,
            minimum=0,
        ),
        Column(
            "stability",
            "DOUBLE",
            "Mean cosine of the features of one half matched with those of the other",
            nullable=True,
            minimum=-1.000001,
            maximum=1.000001,
        ),
        Column(
            "n_reproduced",
            "DOUBLE",
            "Mean number of features, near-duplicates counted once, whose match reaches "
            "match_threshold",
            unit="features",
            nullable=True,
            minimum=0,
        ),
        Column(
            "match_next_rank",
            "DOUBLE",
            "Mean matched cosine with the dictionary of the next larger candidate; NULL for the "
            "largest",
            nullable=True,
            minimum=-1.000001,
            maximum=1.000001,
        ),
        Column(
            "distance",
            "DOUBLE",
            "Octaves between the rank and the largest n_reproduced of the candidates; the nearest "
            "is chosen",
            nullable=True,
            minimum=0,
        ),
        Column("is_chosen", "BOOLEAN", "Whether the fit has this rank"),
        *status_columns("ok, overfits or failed"),
    ),
    key=("site", "fit", "rank"),
    partition_by=("site", "fit"),
)

FEATURE_STABILITY = Table(
    name="feature_stability",
    stage="factorization",
    description="How well each feature is found again from other seeds on the same tokens; no "
    "rows unless the fit sets stability_seeds.",
    columns=(
        SITE,
        FIT,
        FEATURE_ID,
        Column("n_seeds", "INTEGER", "Other seeds", minimum=1),
        Column(
            "mean_cosine",
            "DOUBLE",
            "Mean over the seeds of the cosine with the matched feature",
            minimum=-1.000001,
            maximum=1.000001,
        ),
        Column(
            "min_cosine",
            "DOUBLE",
            "Smallest of these cosines",
            minimum=-1.000001,
            maximum=1.000001,
        ),
    ),
    key=("site", "fit", "feature_id"),
    partition_by=("site", "fit"),
)

FIT_DOCUMENTS = Table(
    name="fit_documents",
    stage="factorization",
    description="The documents of a fit: those its dictionary was fitted on, gone ones with them, "
    "and those whose tokens have coefficients now. By it a later run sees what changed.",
    columns=(
        SITE,
        FIT,
        Column("document_id", "VARCHAR", "Document"),
        Column(
            "rows_hash",
            "VARCHAR",
            "Hash of the document's activation rows, and of its concept for a supervised method",
        ),
        Column(
            "first_row",
            "BIGINT",
            "Row of the site's activations that the document starts with; NULL where it is gone "
            "since the dictionary was fitted",
            nullable=True,
            minimum=0,
        ),
        Column("n_tokens", "BIGINT", "Tokens of the document", minimum=1),
        Column(
            "n_tokens_fitted",
            "BIGINT",
            "Those of them that the dictionary was fitted on; 0 where it came later, or was left "
            "out of the fit",
            minimum=0,
        ),
    ),
    key=("site", "fit", "document_id", "rows_hash"),
    partition_by=("site", "fit"),
)
