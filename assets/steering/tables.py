"""The lake tables of the steering stage; those that sum up a feature are in feature_tables.py."""

from __future__ import annotations

from assets.shared.row_reuse import ROW_FINGERPRINT
from assets.shared.schema import FEATURE_ID, FIT, SITE, Column, Table, status_columns
from assets.steering.feature_tables import JUDGE_FREE_SCORES, STEERING_SUMMARIES

_SIGN = Column("sign", "VARCHAR", "+ or -: sign of the direction; 0 for unsteered base texts")
_TARGET = Column(
    "target_kl_nats",
    "DOUBLE",
    "KL(base‖steered) at the last prompt token asked for; 0 for base texts",
    "nats",
    minimum=0.0,
)
_TEXT_INDEX = Column("text_index", "INTEGER", "Which of the texts", minimum=0)
# What group_steering says of its rows, too.
STEERED_AT = Column(
    "steered_at",
    "VARCHAR",
    "Kind of activation site, in the layer of `site`, where the vector is added: the kind of "
    "`site`, along the feature's direction; but mlp_out for mlp_hidden where the model has a norm "
    "between the MLP and the residual stream (Gemma 2 and 3, OLMo 2), along the feature's decoder "
    "direction: gain of the norm * (down projection of the feature), at unit length. NULL in rows "
    "older than this column, all added at the kind of `site`",
    nullable=True,
)


def _answer_mass(part: str) -> Column:
    return Column(
        f"{part}_answer_mass",
        "DOUBLE",
        f"Share of the first answer token's probability on 0, 1 and 2 in {part}_reply; a graded "
        "rating needs half. NULL where unasked, or no token probabilities were asked for or given, "
        "and in rows older than this column",
        "share",
        nullable=True,
        minimum=0.0,
        maximum=1.0,
    )


_TEXT_KEY = ("site", "fit", "feature_id", "sign", "target_kl_nats", "text_index")
# Of the unsteered base texts.
BASE_SIGN = "0"
# Statuses of texts, and NOT_REACHED of their scores. Both are results: no rerun mends them, and
# coverage counts them.
NOT_REACHED = "not_reached"
EMPTY = "empty"

CALIBRATIONS = Table(
    name="calibrations",
    stage="steering",
    description=(
        "Strength at which adding sign·strength·(unit feature direction) at `steered_at`, at all "
        "positions, moves the next-token distribution by the target KL, averaged over the study's "
        "neutral prompts"
    ),
    columns=(
        SITE,
        FIT,
        FEATURE_ID,
        Column("sign", "VARCHAR", "+ or -: sign of the direction, each calibrated by itself"),
        _TARGET,
        STEERED_AT,
        Column(
            "strength",
            "DOUBLE",
            "Multiple of the unit direction, so the L2 norm of what is added at `steered_at`; NULL "
            "where the target was not reached",
            "activation",
            nullable=True,
            minimum=0.0,
        ),
        Column(
            "achieved_kl_nats",
            "DOUBLE",
            "KL at the strength, or the closest one found where the target was not reached",
            "nats",
            nullable=True,
        ),
        Column(
            "n_evaluations",
            "INTEGER",
            "Strengths tried for this row; rows of one feature and sign share those in common",
            minimum=0,
        ),
        Column("is_converged", "BOOLEAN", "The achieved KL is within the tolerance of the target"),
        Column(
            "token_logprob_gain",
            "DOUBLE",
            "Mean log-probability that steering adds to the feature's own tokens, at the last "
            "prompt token (a judge-free output score). In rows of either sign those are the ten "
            "that + promotes most, so in rows of - it says how much is taken from them. NULL where "
            "not computed",
            "nats",
            nullable=True,
        ),
        ROW_FINGERPRINT,
        *status_columns("ok, not_reached, failed"),
    ),
    key=("site", "fit", "feature_id", "sign", "target_kl_nats"),
    partition_by=("site", "fit"),
)

STEERED_TEXTS = Table(
    name="steered_texts",
    stage="steering",
    description="Texts sampled while a feature is added at its calibrated strength, and base texts",
    columns=(
        SITE,
        FIT,
        FEATURE_ID,
        _SIGN,
        _TARGET,
        _TEXT_INDEX,
        Column(
            "strength",
            "DOUBLE",
            "L2 norm of what is added, at calibrations.steered_at; 0 for base texts; NULL where "
            "not calibrated",
            "activation",
            nullable=True,
            minimum=0.0,
        ),
        Column("prompt", "VARCHAR", "Neutral prompt that the text continues"),
        Column("text", "VARCHAR", "The continuation, without the prompt", nullable=True),
        Column("seed", "BIGINT", "Seed of this text's own generator", minimum=0),
        ROW_FINGERPRINT,
        *status_columns(
            "ok; not_reached: no strength has the target KL (calibrations says why), so no text; "
            "empty: the model ended the text at once"
        ),
    ),
    key=_TEXT_KEY,
    partition_by=("site", "fit"),
)

STEERING_SCORES = Table(
    name="steering_scores",
    stage="steering",
    description=(
        "A judge's ratings of the steered texts: does the text show the feature's label, and is it "
        "fluent; score is their harmonic mean, 0 where either is 0, NULL where a call failed. A "
        "row a text and kind of label that it is judged on (steering.judged_labels)"
    ),
    columns=(
        SITE,
        FIT,
        FEATURE_ID,
        _SIGN,
        _TARGET,
        _TEXT_INDEX,
        Column("label", "VARCHAR", "The concept that the judge was asked about", nullable=True),
        Column(
            "label_kind",
            "VARCHAR",
            "Which of the feature's labels that is: input; output (of texts of sign +) or "
            "output_minus (of sign -); base texts have a row of each",
            nullable=True,
        ),
        Column(
            "concept_rating",
            "DOUBLE",
            "The text shows the label: 0 no, 2 clearly",
            "0..2",
            nullable=True,
            minimum=0.0,
            maximum=2.0,
        ),
        Column(
            "fluency_rating",
            "DOUBLE",
            "The text is fluent: 0 no, 2 fully",
            "0..2",
            nullable=True,
            minimum=0.0,
            maximum=2.0,
        ),
        Column(
            "score",
            "DOUBLE",
            "Harmonic mean of both ratings",
            "0..2",
            nullable=True,
            minimum=0.0,
            maximum=2.0,
        ),
        _answer_mass("concept"),
        _answer_mass("fluency"),
        Column("concept_reply", "VARCHAR", "The judge's raw reply on the concept", nullable=True),
        Column("fluency_reply", "VARCHAR", "The judge's raw reply on fluency", nullable=True),
        Column("concept_request_hash", "VARCHAR", "llm_calls.request_hash", nullable=True),
        Column("fluency_request_hash", "VARCHAR", "llm_calls.request_hash", nullable=True),
        Column(
            "judge",
            "VARCHAR",
            "How the ratings were read, the same in all rows of a fit. graded: expected rating; "
            "json: the rating written as JSON; written: the digit that a graded judge wrote, as "
            "its endpoint gave at least one answer of this fit no token probabilities",
        ),
        *status_columns(
            "ok (with a reason: an empty text, 0 without asking); not_attempted (no label of the "
            "kind); not_reached (no text); failed"
        ),
    ),
    key=(*_TEXT_KEY, "label_kind"),
    partition_by=("site", "fit"),
)

STEERED_TABLES = (CALIBRATIONS, STEERED_TEXTS, STEERING_SCORES)
TABLES = (*STEERED_TABLES, STEERING_SUMMARIES, JUDGE_FREE_SCORES)
