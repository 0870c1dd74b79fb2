"""Tables with numbers of a whole feature: pooled steering scores, and scores without a judge."""

from __future__ import annotations

from assets.shared.row_reuse import ROW_FINGERPRINT
from assets.shared.schema import FEATURE_ID, FIT, SITE, Column, Table, status_columns

_TARGET = Column(
    "target_kl_nats", "DOUBLE", "KL(base‖steered) that was calibrated to", "nats", minimum=0.0
)
_POOLED_SIGN = Column("sign", "VARCHAR", "+ or -: settings of that sign; either: of both")

STEERING_SUMMARIES = Table(
    name="steering_summaries",
    stage="steering",
    description=(
        "Steering scores of a feature pooled over target KLs and texts, by judged label, sign and "
        "way of pooling"
    ),
    columns=(
        SITE,
        FIT,
        FEATURE_ID,
        Column(
            "label_kind",
            "VARCHAR",
            "Which of steering.judged_labels: input; output, of texts of sign + what the feature "
            "promotes, of sign - what subtracting it promotes. NULL in rows from before 0.6.0",
            nullable=True,
        ),
        _POOLED_SIGN,
        Column(
            "pooling",
            "VARCHAR",
            "best_kl: the setting (sign, target KL) of the largest mean over texts, of those "
            "with half of their texts judged; optimistic since the best of many is good by luck "
            "too; best_kl_held_out: each text in the "
            "setting that is best on the texts of the other parity of text_index; mean_kl: all "
            "settings and texts alike",
        ),
        Column(
            "label",
            "VARCHAR",
            "The concept that the judge was asked about; NULL where there is none, or several",
            nullable=True,
        ),
        Column(
            "score",
            "DOUBLE",
            "Mean score of the pooled texts that were judged",
            "0..2",
            nullable=True,
            minimum=0.0,
            maximum=2.0,
        ),
        Column(
            "base_score",
            "DOUBLE",
            "Mean score, for the same label, of the unsteered base texts of the same numbers",
            "0..2",
            nullable=True,
            minimum=0.0,
            maximum=2.0,
        ),
        Column(
            "gain",
            "DOUBLE",
            "Mean over the pooled texts of score less that of the base text of the same number; a "
            "text without the latter is left out",
            "-2..2",
            nullable=True,
            minimum=-2.0,
            maximum=2.0,
        ),
        Column(
            "gain_low",
            "DOUBLE",
            "Lower end of the gain's t interval over text numbers, the chosen settings held fixed; "
            "NULL for one text, texts all alike, and best_kl: its setting is chosen on the very "
            "scores that it averages, so its gain is above 0 by luck too",
            "of the score",
            nullable=True,
        ),
        Column("gain_high", "DOUBLE", "Its upper end", "of the score", nullable=True),
        Column(
            "chosen_sign",
            "VARCHAR",
            "Sign of the chosen setting; NULL where several are pooled or the halves differ",
            nullable=True,
        ),
        Column(
            "target_kl_nats",
            "DOUBLE",
            "Target KL of the chosen setting; NULL where several are pooled or the halves differ",
            "nats",
            nullable=True,
            minimum=0.0,
        ),
        Column(
            "concept_mean",
            "DOUBLE",
            "Mean concept rating of the pooled texts",
            "0..2",
            nullable=True,
            minimum=0.0,
            maximum=2.0,
        ),
        Column(
            "fluency_mean",
            "DOUBLE",
            "Mean fluency rating of the pooled texts",
            "0..2",
            nullable=True,
            minimum=0.0,
            maximum=2.0,
        ),
        Column("n_texts", "INTEGER", "Judged texts that the score averages", "texts", minimum=0),
        Column(
            "n_judged",
            "INTEGER",
            "Texts judged in all settings that were pooled or chosen from",
            "texts",
            minimum=0,
        ),
        Column(
            "n_expected",
            "INTEGER",
            "Texts there should be in these; n_judged / n_expected is the coverage",
            "texts",
            minimum=0,
        ),
        *status_columns(
            "ok; partial: texts not judged, base texts missing, or one half only; none: no score"
        ),
    ),
    key=("site", "fit", "feature_id", "label_kind", "sign", "pooling"),
    partition_by=("site", "fit"),
)

JUDGE_FREE_SCORES = Table(
    name="judge_free_scores",
    stage="steering",
    description=(
        "What steering does, without a judge: input and output score (Arad et al., arXiv "
        "2505.20063) and the log-probability added to the label; one row a calibrated feature, "
        "sign, target KL and kind of label that steered texts are judged on "
        "(steering.judged_labels), alike but for the label"
    ),
    columns=(
        SITE,
        FIT,
        FEATURE_ID,
        Column("sign", "VARCHAR", "+ or -: sign of the direction steered and projected by"),
        _TARGET,
        Column(
            "strength",
            "DOUBLE",
            "Calibrated multiple of the unit direction; NULL where the target was not reached",
            "activation",
            nullable=True,
            minimum=0.0,
        ),
        Column(
            "input_score",
            "DOUBLE",
            "Share of the top contexts whose peak token is among the first 20 tokens of the "
            "vocabulary projection of sign·direction; the same for all targets; NULL below 5 "
            "contexts",
            "share",
            nullable=True,
            minimum=0.0,
            maximum=1.0,
        ),
        Column("n_contexts", "INTEGER", "Top contexts that there are", nullable=True, minimum=0),
        Column(
            "output_score",
            "DOUBLE",
            "Steered, mean over the neutral prompts: largest next-token probability of those first "
            "20 tokens times (1 - smallest rank among them / vocabulary size)",
            nullable=True,
            minimum=0.0,
            maximum=1.0,
        ),
        Column(
            "output_score_base",
            "DOUBLE",
            "The same of the unsteered model",
            nullable=True,
            minimum=0.0,
            maximum=1.0,
        ),
        Column("n_own_tokens", "INTEGER", "Projected tokens that there are", minimum=0),
        Column("label", "VARCHAR", "The label whose tokens are scored", nullable=True),
        Column(
            "label_kind",
            "VARCHAR",
            "Which of the feature's labels that is, as in steering_scores: input; output (sign +) "
            "or output_minus (sign -). In rows from before 0.7.0 the one that stood for the "
            "feature, whatever the sign: input, output, combined or token_summary; NULL without",
            nullable=True,
        ),
        Column(
            "label_logprob_gain",
            "DOUBLE",
            "log p(label's tokens after a neutral prompt) steered minus base, teacher-forced, mean "
            "over prompts and tokens; times n_label_tokens: of the whole label",
            "nats/token",
            nullable=True,
        ),
        Column("n_label_tokens", "INTEGER", "Tokens of the label, at most 16", minimum=0),
        ROW_FINGERPRINT,
        *status_columns("ok; partial: some score is NULL; none: all are"),
    ),
    key=("site", "fit", "feature_id", "sign", "target_kl_nats", "label_kind"),
    partition_by=("site", "fit"),
)
