"""The lake tables of what people say: their ratings, and how these agree with the judge's."""

from __future__ import annotations

from assets.shared.schema import FEATURE_ID, FIT, SITE, Column, Table, status_columns

_STUDY = Column("study", "VARCHAR", "Study whose features were rated")
_QUESTION = Column(
    "question",
    "VARCHAR",
    "concept: the text shows the label; fluency: the text is fluent; label_fit: the label fits "
    "the contexts",
)

HUMAN_RATINGS = Table(
    name="human_ratings",
    stage="ratings",
    description=(
        "What people rated on blind sheets (make rating-sheet, make ratings): one row a sheet, "
        "item, question and rater, with what they saw and where it came from"
    ),
    columns=(
        _STUDY,
        Column("sheet", "VARCHAR", "Hash of the sheet's items and raters, whatever the ratings"),
        Column(
            "item", "VARCHAR", "Hash of what was shown and where it is from; all a rater sees of it"
        ),
        _QUESTION,
        Column("rater", "VARCHAR", "Who rated, as they named themselves"),
        Column("rating", "DOUBLE", "0 no, 1 partly, 2 yes", "0..2", minimum=0.0, maximum=2.0),
        SITE,
        FIT,
        FEATURE_ID,
        Column("sign", "VARCHAR", "Of a text: its sign in steered_texts, 0: base", nullable=True),
        Column(
            "target_kl_nats",
            "DOUBLE",
            "Of a text: its target KL in steered_texts",
            "nats",
            nullable=True,
        ),
        Column("text_index", "INTEGER", "Of a text: its number there", nullable=True),
        Column("label_kind", "VARCHAR", "Which of the feature's labels it was", nullable=True),
        Column("label", "VARCHAR", "The label shown"),
        Column("prompt", "VARCHAR", "Of a text: the prompt that it continues", nullable=True),
        Column("text", "VARCHAR", "The text, or the contexts, shown"),
        Column("sheet_hash", "VARCHAR", "sha256 of the sheet's file"),
    ),
    key=("study", "sheet", "item", "question", "rater"),
    partition_by=("study",),
)

RATING_AGREEMENT = Table(
    name="rating_agreement",
    stage="ratings",
    description=(
        "Spearman correlation over items: of the raters' mean with each judge, and of each two "
        "raters, with an interval over features (the items of one are rated alike); the judge's "
        "ratings are those at the time of the sheet"
    ),
    columns=(
        _STUDY,
        _QUESTION,
        Column("compared", "VARCHAR", "judge: people with a judge; raters: two people"),
        Column("first", "VARCHAR", "mean of raters, or a rater"),
        Column(
            "second",
            "VARCHAR",
            "The judge as rating and model (graded, json; for label_fit a method of label_scores, "
            "by its AUROC), or the other rater",
        ),
        Column("n_items", "INTEGER", "Items that both rated", "items", minimum=0),
        Column(
            "n_features",
            "INTEGER",
            "Features that these items are of, which the interval draws from; NULL in rows from "
            "before 0.6.0",
            "features",
            nullable=True,
            minimum=0,
        ),
        Column("n_raters", "INTEGER", "People behind the ratings", minimum=0),
        Column(
            "spearman",
            "DOUBLE",
            "Rank correlation, ties by midranks",
            nullable=True,
            minimum=-1.000001,
            maximum=1.000001,
        ),
        Column(
            "spearman_low",
            "DOUBLE",
            "Lower end of its percentile bootstrap interval: features are drawn, each with all its "
            "items; NULL below 5 features",
            nullable=True,
        ),
        Column("spearman_high", "DOUBLE", "Upper end of the same interval", nullable=True),
        Column("mean_first", "DOUBLE", "Mean rating of first", nullable=True),
        Column("mean_second", "DOUBLE", "Mean rating of second", nullable=True),
        *status_columns(
            "ok (with a reason where there is no interval); undefined: too few items, or ratings "
            "that are all equal"
        ),
    ),
    key=("study", "question", "compared", "first", "second"),
    partition_by=("study",),
)

TABLES = (HUMAN_RATINGS, RATING_AGREEMENT)
