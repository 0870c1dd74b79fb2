"""The lake tables of the evidence stage."""

from __future__ import annotations

from assets.shared.schema import FEATURE_ID, FIT, SITE, Column, Table

CONTEXTS = Table(
    name="contexts",
    stage="evidence",
    description=(
        "Token windows per feature: top, sampled and near_miss ones are shown to the labeller; "
        "held_out, negative and hard_negative ones score its label. One context a document, so no "
        "document is both shown and kept back, and no window repeats the words of one on the other "
        "side. A feature that never fires has no rows"
    ),
    columns=(
        SITE,
        FIT,
        FEATURE_ID,
        Column(
            "kind",
            "VARCHAR",
            "top (strongest), sampled (over strengths), held_out (not shown), negative (no firing),"
            " near_miss (a similar feature fires and this one does not; shown), hard_negative (the "
            "same, not shown)",
        ),
        Column("rank_in_kind", "INTEGER", "Order within the kind, strongest first", minimum=0),
        Column("row", "BIGINT", "Peak token: tokens.row of the site", minimum=0),
        Column("document_id", "VARCHAR", "Document of the window"),
        Column("position", "INTEGER", "Position of the peak token in its document", "tokens"),
        Column(
            "similar_feature_id",
            "INTEGER",
            "The similar feature that peaks here; NULL but for near_miss and hard_negative",
            nullable=True,
        ),
        Column(
            "coefficient",
            "FLOAT",
            "The feature's coefficient at the peak token (0 where none)",
            minimum=0.0,
        ),
        Column("peak_token", "VARCHAR", "Whole word that the peak token belongs to"),
        Column("token", "VARCHAR", "The peak token itself, one piece of the tokenizer"),
        Column("text", "VARCHAR", "The window as text"),
        Column("marked_text", "VARCHAR", "The window with the peak word between « and »"),
        Column("window_tokens", "VARCHAR[]", "The window's tokens, in order"),
        Column(
            "window_coefficients", "FLOAT[]", "The feature's coefficient at each of window_tokens"
        ),
        Column(
            "n_repeats_left_out",
            "INTEGER",
            "The feature's windows, of all kinds, that were passed over because one kept back "
            "would repeat what is shown: equal normalised words, 8 words in a row or 80 % of the "
            "runs of 5. A kind gives up after 1,000 of them and has fewer rows. NULL in rows from "
            "before 0.7.0",
            nullable=True,
            minimum=0,
        ),
    ),
    key=("site", "fit", "feature_id", "kind", "rank_in_kind"),
    partition_by=("site", "fit"),
)

VOCAB_PROJECTION = Table(
    name="vocab_projection",
    stage="evidence",
    description=(
        "Vocabulary tokens that a feature's decoder direction favours, for both signs: "
        "unembed(final_norm(±direction)). Special, unused and partial-character tokens are left out"
    ),
    columns=(
        SITE,
        FIT,
        FEATURE_ID,
        Column("sign", "VARCHAR", "+ or -: the sign given to the decoder direction"),
        Column("rank_in_sign", "INTEGER", "0 is the token with the largest logit", minimum=0),
        Column("token_id", "INTEGER", "Token of the subject model's tokenizer", minimum=0),
        Column("token", "VARCHAR", "The whole decoded token, leading space kept"),
        Column("logit", "FLOAT", "Its logit under the projection", "logit"),
    ),
    key=("site", "fit", "feature_id", "sign", "rank_in_sign"),
    partition_by=("site", "fit"),
)

BILINEAR_VIEW = Table(
    name="bilinear_view",
    stage="evidence",
    description=(
        "What a feature reads, from the weights alone: eigenvectors of its quadratic form on the "
        "input of a gated MLP, the activation dropped (arXiv 2410.08417), with the input tokens "
        "nearest to both ends of each. An approximation: a hypothesis about the feature. Only for "
        "gated MLPs at mlp_hidden and mlp_out; a feature without weights has no rows"
    ),
    columns=(
        SITE,
        FIT,
        FEATURE_ID,
        Column("eigen_rank", "INTEGER", "0 is the eigenvalue largest in absolute value", minimum=0),
        Column(
            "eigenvalue",
            "DOUBLE",
            "Above 0: inputs along the eigenvector raise the feature; below 0: they lower it",
        ),
        Column(
            "share_frobenius",
            "DOUBLE",
            "Its square as a share of the form's squared Frobenius norm",
            minimum=0,
            maximum=1,
        ),
        Column("side", "VARCHAR", "+ or -: end of the eigenvector; the form is the same at both"),
        Column("token_rank", "INTEGER", "0 is the token nearest to that end", minimum=0),
        Column("token_id", "INTEGER", "Token of the subject model's tokenizer", minimum=0),
        Column("token", "VARCHAR", "The whole decoded token, leading space kept"),
        Column("score", "FLOAT", "Cosine of the token's input embedding with that end"),
    ),
    key=("site", "fit", "feature_id", "eigen_rank", "side", "token_rank"),
    partition_by=("site", "fit"),
)

TABLES = (CONTEXTS, VOCAB_PROJECTION, BILINEAR_VIEW)
