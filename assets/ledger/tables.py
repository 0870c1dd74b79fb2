"""The ledger's table: one row for each time an asset partition was considered."""

from __future__ import annotations

from assets.shared.schema import Column, Table

DECISIONS = ("computed", "reused", "skipped", "failed", "over_budget", "removed", "retry")

RUN_LEDGER = Table(
    name="run_ledger",
    stage="ledger",
    description=(
        "What was done about each asset partition and why: one row each time one was considered. "
        "A row of computed stands in the same snapshot as the data it tells of"
    ),
    columns=(
        Column("study", "VARCHAR", "Study that the partition belongs to"),
        Column("run_id", "VARCHAR", "Dagster run; of the main job where that one decided"),
        Column("asset", "VARCHAR", "Asset: the tables that are made together, e.g. labels"),
        Column("partition", "VARCHAR", "Partition key: the study, the site, or site | fit"),
        Column("considered_at", "TIMESTAMPTZ", "When it was decided"),
        Column(
            "decision",
            "VARCHAR",
            "computed; reused (nothing changed); skipped (what it reads failed); failed; "
            "over_budget (left for the next run); removed (its study names it no more); retry "
            "(rows that failed are to be tried again)",
        ),
        Column("reason", "VARCHAR", "Why, in words, e.g. labels.max_features 6 → 8"),
        Column(
            "fingerprint_before",
            "VARCHAR",
            "Fingerprint of the rows that were there; NULL where there were none",
            nullable=True,
        ),
        Column("fingerprint", "VARCHAR", "Hash of parts", nullable=True),
        Column(
            "parts",
            "VARCHAR",
            "What the rows are made from, by name, as JSON: code, settings, prompts, model, inputs",
            nullable=True,
        ),
        Column(
            "versions",
            "VARCHAR",
            "Data version of each column of each table, as JSON: table, column, hash; of "
            "decisions that say what the rows now are",
            nullable=True,
        ),
        Column("rows_in", "BIGINT", "Rows that were there before", "rows", nullable=True),
        Column("rows_out", "BIGINT", "Rows there after", "rows", nullable=True),
        Column(
            "rows_reused",
            "BIGINT",
            "Rows that were there before, equal in every column that is content (not time, price, "
            "history). Whether they were taken over or made again, tokens and LLM calls tell",
            "rows",
            nullable=True,
        ),
        Column(
            "rows_computed",
            "BIGINT",
            "Rows that are new or came out different: rows_out - rows_reused",
            "rows",
            nullable=True,
        ),
        Column(
            "rows_to_retry",
            "BIGINT",
            "Rows that lack an answer of the LLM, which another run may get",
            "rows",
            nullable=True,
        ),
        Column(
            "attempt",
            "INTEGER",
            "How many times in a row these parts were tried without fewer rows left to be retried",
            "runs",
            nullable=True,
        ),
        Column("forward_tokens", "BIGINT", "Tokens run through the subject model", "tokens", True),
        Column("llm_calls_made", "BIGINT", "Calls sent to the LLM", "calls", nullable=True),
        Column("llm_calls_reused", "BIGINT", "Calls that the cache answered", "calls", True),
        Column("llm_calls_failed", "BIGINT", "Calls that failed and may pass", "calls", True),
        Column("llm_tokens", "BIGINT", "Tokens of the calls made", "tokens", nullable=True),
        Column("usd", "DOUBLE", "Price of the calls made; NULL: unknown", "USD", nullable=True),
        Column("seconds", "DOUBLE", "Wall time", "seconds", nullable=True),
        Column(
            "data_snapshot", "BIGINT", "Snapshot that holds the partition's rows", nullable=True
        ),
    ),
    key=("study", "run_id", "asset", "partition", "considered_at"),
    partition_by=("study",),
)

TABLES = (RUN_LEDGER,)
