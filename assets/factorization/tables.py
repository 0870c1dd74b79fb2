"""The table of fits, one row each: settings, how the fit ended, how well it explains.

What a fit consists of is in factor_tables.py, what compares fits in comparison_tables.py.
"""

from __future__ import annotations

from assets.factorization.comparison_tables import (
    FEATURE_MATCHES,
    FEATURE_STABILITY,
    FIT_DOCUMENTS,
    RANK_CHOICES,
)
from assets.factorization.factor_tables import COEFFICIENTS, DICTIONARY, ENCODERS
from assets.shared.schema import FIT, SITE, Column, Table, status_columns

FACTORIZATIONS = Table(
    name="factorizations",
    stage="factorization",
    description="One row a fit at a site: settings, how the fit ended, how well it explains.",
    columns=(
        SITE,
        FIT,
        Column(
            "method",
            "VARCHAR",
            "snmf, sae, transcoder, diff_means, pca, kmeans, nmf, neurons, random, permuted or "
            "covariance",
        ),
        Column(
            "rank",
            "INTEGER",
            "Rank asked for, or chosen for rank auto; NULL without one",
            nullable=True,
            minimum=1,
        ),
        Column("solver", "VARCHAR", "SNMF solver; NULL where no SNMF fit runs", nullable=True),
        Column(
            "keep_fraction",
            "DOUBLE",
            "Share of neurons a feature may use; NULL for dense methods",
            nullable=True,
            minimum=0,
            maximum=1,
        ),
        Column(
            "coefficient_penalty",
            "DOUBLE",
            "Penalty on coefficients in effect, for activations divided by their mean row norm; "
            "NULL for methods without one",
            nullable=True,
            minimum=0,
        ),
        Column(
            "penalty_concavity",
            "DOUBLE",
            "How far the penalty lets go of large coefficients: 0 the L1 norm, near 1 a hard "
            "threshold; NULL where there is no penalty",
            nullable=True,
            minimum=0,
            maximum=1,
        ),
        Column(
            "column_scaling",
            "DOUBLE",
            "How much quiet neurons were raised before the fit: 0 not at all, 1 to equal energy; "
            "NULL where no coordinate fit runs",
            nullable=True,
            minimum=0,
            maximum=1,
        ),
        Column(
            "row_scaling",
            "DOUBLE",
            "How much quiet tokens were raised before the fit: 0 not at all, 1 to equal norm; "
            "NULL where no coordinate fit runs",
            nullable=True,
            minimum=0,
            maximum=1,
        ),
        Column("init", "VARCHAR", "Where the fit starts; NULL where none runs", nullable=True),
        Column("seed", "BIGINT", "Seed of all randomness of the fit", minimum=0),
        Column("n_tokens", "BIGINT", "Tokens that have coefficients", minimum=0),
        Column("n_tokens_fit", "BIGINT", "Tokens the dictionary was fitted on", minimum=0),
        Column(
            "n_tokens_changed",
            "BIGINT",
            "Tokens new to the fit or gone from it since the dictionary was fitted (fit_documents)",
            nullable=True,
            minimum=0,
        ),
        Column(
            "n_massive_excluded",
            "BIGINT",
            "Tokens of massive activation left out of the fit",
            minimum=0,
        ),
        Column("width", "INTEGER", "Neurons of the site", minimum=1),
        Column("n_features", "INTEGER", "Features of the dictionary", nullable=True, minimum=1),
        Column(
            "explained_variance",
            "DOUBLE",
            "1 - |A - YZ|² / |A|² over the tokens of the fit; below 0 for a method that does not "
            "reconstruct",
            nullable=True,
            maximum=1,
        ),
        Column(
            "explained_variance_centered",
            "DOUBLE",
            "1 - |A - YZ|² / |A - mean|² over the tokens of the fit",
            nullable=True,
            maximum=1,
        ),
        Column(
            "explained_variance_all_tokens",
            "DOUBLE",
            "explained_variance over all tokens, the massive ones with them",
            nullable=True,
            maximum=1,
        ),
        Column(
            "l0",
            "DOUBLE",
            "Mean number of coefficients above zero per token of the fit",
            unit="features",
            nullable=True,
            minimum=0,
        ),
        Column(
            "n_dead_features",
            "INTEGER",
            "Features without a coefficient above zero on any token of the fit",
            nullable=True,
            minimum=0,
        ),
        Column(
            "n_iter",
            "INTEGER",
            "Iterations of the fit, or sweeps of the coefficient solve; 0 for closed forms",
            nullable=True,
            minimum=0,
        ),
        Column("is_converged", "BOOLEAN", "Whether the fit converged", nullable=True),
        Column("stop_reason", "VARCHAR", "Why the fit ended, in words", nullable=True),
        Column(
            "objective_trace",
            "DOUBLE[]",
            "Objective after each iteration, for activations as the fit scales them; NULL where "
            "nothing is iterated",
            nullable=True,
        ),
        Column(
            "explained_variance_trace",
            "DOUBLE[]",
            "Explained variance after each iteration, of activations as the fit scales them, with "
            "the coefficients of that iteration; NULL where nothing is iterated",
            nullable=True,
        ),
        Column(
            "offset_vector",
            "FLOAT[]",
            "Vector added to YZ: the mean activation (pca), the decoder's bias (sae, transcoder); "
            "NULL for methods without one",
            nullable=True,
        ),
        Column(
            "feature_names",
            "VARCHAR[]",
            "Name of each feature, in the order of feature_ids: its concept (diff_means), neuron "
            "and sign (neurons) or latent (public sae); NULL for methods without names",
            nullable=True,
        ),
        Column(
            "feature_ids",
            "INTEGER[]",
            "Ids of the features, in the order of the dictionary's rows; a feature keeps its id "
            "over refits",
            nullable=True,
        ),
        Column(
            "next_feature_id",
            "INTEGER",
            "Id that the next new feature gets; ids of lost features are not used again",
            nullable=True,
            minimum=0,
        ),
        Column(
            "start",
            "VARCHAR",
            "cold (from the seed), warm (from the dictionary of started_from_snapshot) or "
            "projected (that dictionary kept, coefficients solved for new documents alone)",
            nullable=True,
        ),
        Column(
            "started_from_snapshot",
            "BIGINT",
            "Lake snapshot of the fit that this one went on from; NULL for a cold start",
            nullable=True,
            minimum=0,
            is_volatile=True,
        ),
        Column(
            "activation_scale",
            "DOUBLE",
            "Mean row norm of the tokens the dictionary was fitted on, by which activations are "
            "divided for the coefficient solve",
            nullable=True,
            minimum=0,
        ),
        Column(
            "mean_row",
            "FLOAT[]",
            "Mean activation of the tokens the dictionary was fitted on; NULL in fits from before "
            "0.3.0",
            nullable=True,
        ),
        Column(
            "stability",
            "DOUBLE",
            "Mean matched cosine of the features with fits from stability_seeds other seeds; NULL "
            "where none were made",
            nullable=True,
            minimum=-1.000001,
            maximum=1.000001,
        ),
        Column(
            "inputs_fingerprint",
            "VARCHAR",
            "Hash of the code, the settings and the inputs of the fit; where it is the same the "
            "rows are reused",
            nullable=True,
        ),
        Column(
            "activations_digest",
            "VARCHAR",
            "Hash of the activations' files; where the site's have another the coefficients are of "
            "other tokens",
            nullable=True,
        ),
        Column(
            "seconds",
            "DOUBLE",
            "Wall time of the fit",
            unit="s",
            nullable=True,
            minimum=0,
            is_volatile=True,
        ),
        *status_columns("ok or failed"),
    ),
    key=("site", "fit"),
    partition_by=("site", "fit"),
)

TABLES = (
    FACTORIZATIONS,
    DICTIONARY,
    ENCODERS,
    COEFFICIENTS,
    FEATURE_MATCHES,
    RANK_CHOICES,
    FEATURE_STABILITY,
    FIT_DOCUMENTS,
)
