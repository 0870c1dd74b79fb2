"""The lake tables of the labels stage; `llm_calls` is also written by detection and steering."""

from __future__ import annotations

from assets.shared.schema import FEATURE_ID, FIT, SITE, Column, Table, status_columns

REQUEST_HASH = Column(
    "request_hash",
    "VARCHAR",
    "The call in llm_calls that gave it; NULL where no LLM was asked",
    nullable=True,
)

LABELS = Table(
    name="labels",
    stage="labels",
    description=(
        "What a feature is called, by kind of label; one row a feature and kind, also where the "
        "LLM was not asked, failed, or saw no common theme"
    ),
    columns=(
        SITE,
        FIT,
        FEATURE_ID,
        Column(
            "kind",
            "VARCHAR",
            "input: an LLM's, from contexts; output: an LLM's, from the tokens that the feature "
            "promotes (vocab_projection, sign +; in rows from before 0.6.0 of both signs); "
            "output_minus: the same from those that subtracting it promotes (sign -); combined: "
            "an LLM's, from contexts and promoted tokens; token_summary: the most frequent peak "
            "words, no LLM",
        ),
        Column("label", "VARCHAR", "The label; NULL unless the status is ok", nullable=True),
        Column(
            "candidates",
            "VARCHAR[]",
            "Different labels that the LLM proposed, its first answer first; NULL where it was "
            "asked once",
            nullable=True,
        ),
        Column(
            "n_candidates",
            "INTEGER",
            "How many they are; 1 where the LLM was asked once, 0 where no label came of it; NULL "
            "in rows from before 0.4.0",
            nullable=True,
            minimum=0,
        ),
        Column(
            "pmi_nats",
            "DOUBLE",
            "log p(label | evidence) - pmi_weight * log p(label) of the label, by which it was "
            "chosen; NULL where candidates were not reranked",
            "nats",
            nullable=True,
        ),
        *status_columns(
            "ok; none (no evidence, or the LLM saw no theme); failed; not_attempted (max_features)"
        ),
        Column("prompt_name", "VARCHAR", "Prompt it was asked with", nullable=True),
        Column("prompt_version", "VARCHAR", "Hash of the prompt's template", nullable=True),
        Column("llm_model", "VARCHAR", "LLM that wrote it", nullable=True),
        REQUEST_HASH,
    ),
    key=("site", "fit", "feature_id", "kind"),
    partition_by=("site", "fit"),
)

LABEL_SCORES = Table(
    name="label_scores",
    stage="labels",
    description=(
        "How well a label tells contexts in which its feature fires from contexts in which it does "
        "not, on contexts that the labeller never saw. Rows with is_shuffled are the control: the "
        "same contexts judged by another feature's label, which should score 0.5"
    ),
    columns=(
        SITE,
        FIT,
        FEATURE_ID,
        Column("kind", "VARCHAR", "Kind of the label that is scored: input, output or combined"),
        Column(
            "method",
            "VARCHAR",
            "detection: the judge says yes or no to a context and the label; fuzzing: the same of "
            "a word marked in a context; simulation: it rates how active the feature is at each "
            "word; …_choice: it chooses between the label and another feature's; …_likelihood: by "
            "the log-probability of the label as the topic of the text or word. Not comparable",
        ),
        Column(
            "negatives",
            "VARCHAR",
            "random: contexts without firing (fuzzing: the same contexts, another word marked); "
            "hard: contexts where a similar feature fires instead; NULL in rows from before 0.4.0",
            nullable=True,
        ),
        Column(
            "is_shuffled",
            "BOOLEAN",
            "Control: judged by another feature's label, drawn by seed; NULL as above",
            nullable=True,
        ),
        Column(
            "judged_label", "VARCHAR", "The label judged; NULL where there is none", nullable=True
        ),
        Column("n_positive", "INTEGER", "Held-out contexts judged", "contexts", minimum=0),
        Column("n_negative", "INTEGER", "Negatives judged", "contexts", minimum=0),
        Column(
            "n_failed",
            "INTEGER",
            "Contexts the judge did not answer on (of a choice: not on every foil)",
            "contexts",
            minimum=0,
        ),
        Column(
            "balanced_accuracy",
            "DOUBLE",
            "Mean of the hit rates on positives and negatives; above 0.5 an answer means fit",
            nullable=True,
            minimum=0.0,
            maximum=1.0,
        ),
        Column(
            "balanced_accuracy_low",
            "DOUBLE",
            "Lower end of its interval over contexts: Wilson's of both rates, combined by square "
            "and add; fuzzing's random negatives are the positives' contexts, so there it is wider "
            "than need be. NULL in rows from before 0.5.0",
            nullable=True,
        ),
        Column("balanced_accuracy_high", "DOUBLE", "Upper end of the same", nullable=True),
        Column(
            "auroc",
            "DOUBLE",
            "P(a held-out context is found to fit better than a negative), ties half",
            nullable=True,
            minimum=0.0,
            maximum=1.0,
        ),
        Column(
            "auroc_low",
            "DOUBLE",
            "Lower end of its interval over contexts (Newcombe's score type); fuzzing's random "
            "negatives are the positives' contexts, so there it is wider than need be",
            nullable=True,
        ),
        Column("auroc_high", "DOUBLE", "Upper end of the same", nullable=True),
        Column(
            "correlation",
            "DOUBLE",
            "Simulation: Pearson correlation of expected ratings and coefficients over words",
            nullable=True,
            minimum=-1.0,
            maximum=1.0,
        ),
        Column(
            "correlation_low",
            "DOUBLE",
            "Lower end of its interval: each context left out in turn, t on Fisher's z; NULL of "
            "one context of a sort, without spread, and in rows from before 0.7.0",
            nullable=True,
        ),
        Column("correlation_high", "DOUBLE", "Upper end of the same", nullable=True),
        Column(
            "seed",
            "INTEGER",
            "Seed of foils, marks and shuffled labels; NULL as above",
            nullable=True,
        ),
        Column(
            "request_hashes",
            "VARCHAR[]",
            "The judge's calls in llm_calls; NULL as above",
            nullable=True,
        ),
        *status_columns(
            "ok; partial (some answers missing); failed; undefined (nothing varies); "
            "not_attempted (no label, or no contexts of the sort). The reason also counts contexts "
            "that fuzzing found no word to mark in, of any status"
        ),
    ),
    key=("site", "fit", "feature_id", "kind", "method", "negatives", "is_shuffled"),
    partition_by=("site", "fit"),
)

LLM_CALLS = Table(
    name="llm_calls",
    stage="labels",
    description=(
        "Every request to an LLM: what was asked, what came back, what it cost. A reused answer "
        "keeps the tokens and seconds of the call that made it and costs nothing again"
    ),
    columns=(
        SITE,
        FIT,
        Column("stage", "VARCHAR", "Stage that asked: labels, detection or steering"),
        Column("call_index", "INTEGER", "Order within the stage's materialization", minimum=0),
        Column("purpose", "VARCHAR", "What the batch was for"),
        Column("request_hash", "VARCHAR", "Hash of model, messages, schema and sampling"),
        Column("prompt_name", "VARCHAR", "Prompt it was asked with"),
        Column("prompt_version", "VARCHAR", "Hash of the prompt's template"),
        Column("prompt", "VARCHAR", "The messages, as JSON"),
        Column("reply", "VARCHAR", "Text of the answer", nullable=True),
        Column("llm_model", "VARCHAR", "LLM that was asked"),
        Column("prompt_tokens", "INTEGER", "Tokens sent", "tokens", nullable=True, minimum=0),
        Column(
            "completion_tokens", "INTEGER", "Tokens written", "tokens", nullable=True, minimum=0
        ),
        Column(
            "seconds",
            "DOUBLE",
            "Time of the call when it was made",
            "seconds",
            minimum=0.0,
            is_volatile=True,
        ),
        Column(
            "usd",
            "DOUBLE",
            "Price of the call in this run: 0 where reused, NULL where the price is unknown",
            "USD",
            nullable=True,
            minimum=0.0,
            is_volatile=True,
        ),
        Column(
            "usd_of_answer",
            "DOUBLE",
            "Price of the answer's tokens by the study's prices, also where it is reused; of "
            "repairs that went on from an answer of an earlier run, what this run paid. NULL where "
            "the price is unknown, and in rows from before 0.7.0",
            "USD",
            nullable=True,
            minimum=0.0,
            is_volatile=True,
        ),
        Column("was_reused", "BOOLEAN", "Answered from the cache, no call made", is_volatile=True),
        Column(
            "dropped_parameters",
            "VARCHAR",
            "Parameters that the endpoint refused, so that the answer was made without them "
            "(temperature, seed, logprobs, response_format); NULL where it took all",
            nullable=True,
        ),
        *status_columns("ok; failed"),
    ),
    key=("site", "fit", "stage", "call_index"),
    partition_by=("site", "fit", "stage"),
)

TABLES = (LABELS, LABEL_SCORES, LLM_CALLS)
