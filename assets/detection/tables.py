"""The lake tables of the detection stage."""

from __future__ import annotations

from assets.labels.tables import REQUEST_HASH
from assets.shared.row_reuse import ROW_FINGERPRINT
from assets.shared.schema import FEATURE_ID, FIT, SITE, Column, Table, status_columns

_KIND_RULE = (
    "one for all features of a study: input, where labels.kinds asks for it, else the first of "
    "output and combined that it asks for; no other stands in for one that is none or failed. NULL "
)

PROBE_SENTENCES = Table(
    name="probe_sentences",
    stage="detection",
    description=(
        "Sentences that a feature should fire on (an LLM wrote them for the feature's label) and "
        "neutral ones (from a list bundled with the code, as long as those in tokens), each with "
        "the feature's score on it"
    ),
    columns=(
        SITE,
        FIT,
        FEATURE_ID,
        Column("kind", "VARCHAR", "activating (written for the label) or neutral (bundled)"),
        Column(
            "label_kind",
            "VARCHAR",
            "Kind of the label that the feature is probed by, "
            + _KIND_RULE
            + "where labels.kinds asks for none of these, and in rows from before 0.7.0",
            nullable=True,
        ),
        Column("sentence_index", "INTEGER", "Order within the kind", minimum=0),
        Column("sentence", "VARCHAR", "The sentence; NULL where none was written", nullable=True),
        Column(
            "n_tokens",
            "INTEGER",
            "Its tokens in the subject model, massive ones among them, special ones not. NULL "
            "where there is no sentence, and in rows from before 0.7.0",
            "tokens",
            nullable=True,
            minimum=0,
        ),
        Column(
            "score",
            "DOUBLE",
            "Largest cosine of the feature direction and the activation over the sentence's tokens",
            "cosine",
            nullable=True,
            minimum=-1.0001,
            maximum=1.0001,
        ),
        Column(
            "largest_norm",
            "DOUBLE",
            "Largest row norm among the sentence's tokens that count",
            nullable=True,
            minimum=0.0,
        ),
        Column(
            "smallest_massive_norm",
            "DOUBLE",
            "Smallest row norm among its tokens left out as massive; NULL where none is",
            nullable=True,
            minimum=0.0,
        ),
        REQUEST_HASH,
        *status_columns(
            "ok; failed; no_label (within the cap, but labels has none of label_kind: none, failed "
            "or not asked for); not_attempted (beyond max_features)"
        ),
        ROW_FINGERPRINT,
    ),
    key=("site", "fit", "feature_id", "kind", "sentence_index"),
    partition_by=("site", "fit"),
)


def _probability(name: str, description: str, formerly: str | None = None) -> Column:
    return Column(
        name, "DOUBLE", description, nullable=True, minimum=0.0, maximum=1.0, formerly=formerly
    )


def _mean_tokens(name: str, of: str) -> Column:
    return Column(
        f"mean_tokens_{name}", "DOUBLE", f"Mean length of the {of}", "tokens", True, minimum=0.0
    )


CONCEPT_DETECTION = Table(
    name="concept_detection",
    stage="detection",
    description=(
        "Whether a feature fires on its concept: on generated sentences for its label (source "
        "generated) and on the corpus's own concepts (source corpus: the concept is chosen on one "
        "half of the documents and measured on the other). p_value_texts and q_value_texts are "
        "of these texts: whether the scores have anything to do with which are the concept's. "
        "Texts of two kinds differ in much, so that is true of most random directions too; whether "
        "a feature does better than directions without meaning is told by feature_significance, "
        "against the null controls"
    ),
    columns=(
        SITE,
        FIT,
        FEATURE_ID,
        Column("source", "VARCHAR", "generated (the label's probe sentences) or corpus"),
        Column("concept", "VARCHAR", "The label, or the corpus's best concept", nullable=True),
        Column(
            "label_kind",
            "VARCHAR",
            "Kind of that label, as in probe_sentences: "
            + _KIND_RULE
            + "for source corpus, where labels.kinds asks for none of these, and in rows from "
            "before 0.7.0, where kinds were mixed",
            nullable=True,
        ),
        Column("n_positive", "INTEGER", "Sentences or documents of the concept", nullable=True),
        Column(
            "n_negative",
            "INTEGER",
            "Neutral sentences, or documents of other concepts; those without a concept are left "
            "out, or are among them, by detection.documents_without_concept",
            nullable=True,
        ),
        _mean_tokens("positive", "positives"),
        _mean_tokens(
            "negative",
            "negatives: the score is a maximum over tokens, so of longer texts it is higher. "
            "Neutral sentences are chosen for the lengths of the activating ones; documents are "
            "what they are",
        ),
        Column("mean_positive", "DOUBLE", "Mean score of the positives", "cosine", nullable=True),
        Column("mean_negative", "DOUBLE", "Mean score of the negatives", "cosine", nullable=True),
        Column(
            "s_cd",
            "DOUBLE",
            "ln(mean_positive / mean_negative); NULL where a mean is not above 0",
            "nats",
            nullable=True,
        ),
        Column(
            "s_cd_low",
            "DOUBLE",
            "Lower end of its interval over texts: Fieller's of the ratio, with Welch's degrees of "
            "freedom; NULL where unbounded (a mean that could be 0), of one text, without spread, "
            "and in rows from before 0.7.0",
            "nats",
            nullable=True,
        ),
        Column("s_cd_high", "DOUBLE", "Upper end of the same", "nats", nullable=True),
        _probability("auroc", "P(a positive scores above a negative), ties half"),
        _probability("auroc_low", "Lower end of auroc's interval over texts (Newcombe's)"),
        _probability("auroc_high", "Upper end of the same"),
        _probability(
            "p_value_texts",
            "One-sided Mann-Whitney test that auroc is above 0.5: of the null that the scores have "
            "nothing to do with which texts are the concept's, which is false for most random "
            "directions too (feature_significance tests against those). Exact for few texts, tied "
            "or not; of many, the normal limit, or where that fails (most scores tied) 9,999 "
            "choices drawn by detection.seed. At least 1 / C(n_positive + n_negative, n_positive), "
            "of drawn ones 0.0001. One test a feature and source. Called p_value before 0.7.0",
            formerly="p_value",
        ),
        _probability(
            "q_value_texts",
            "p_value_texts by Benjamini and Hochberg over the features of the fit that have one in "
            "this source: the false discovery rate, of that null, at which it is just significant. "
            "No evidence that a feature is better than a random direction. Called q_value before "
            "0.7.0",
            formerly="q_value",
        ),
        Column(
            "cohens_d",
            "DOUBLE",
            "Difference of the means over the pooled standard deviation",
            "standard deviations",
            nullable=True,
        ),
        *status_columns(
            "ok; partial; failed; not_applicable (no corpus concepts); of generated sentences also "
            "no_label and not_attempted, as in probe_sentences"
        ),
    ),
    key=("site", "fit", "feature_id", "source"),
    partition_by=("site", "fit"),
)

TABLES = (PROBE_SENTENCES, CONCEPT_DETECTION)
