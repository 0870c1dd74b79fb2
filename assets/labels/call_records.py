"""Replies of a chat model as rows of `llm_calls`; every stage that asks an LLM uses this.

The columns site, fit and stage are the caller's to add.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import polars as pl

from assets.labels.tables import LLM_CALLS
from assets.shared.chat import ChatReply

_SCHEMA = {
    column.name: column.polars_type
    for column in LLM_CALLS.columns
    if column.name not in LLM_CALLS.partition_by
}


def llm_calls_frame(replies: Sequence[ChatReply], purpose: str) -> pl.DataFrame:
    """One row a reply, in order; `call_index` counts from 0 (see `join_llm_calls` for batches).

    `usd` is what this run paid: 0 for a reused answer; `usd_of_answer` what its tokens cost.
    """
    rows = [
        {
            "call_index": index,
            "purpose": purpose,
            "request_hash": reply.request_hash,
            "prompt_name": reply.request.prompt_name,
            "prompt_version": reply.request.prompt_version,
            "prompt": json.dumps([dict(m) for m in reply.request.messages], ensure_ascii=False),
            "reply": reply.text,
            "llm_model": reply.model,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "seconds": reply.seconds,
            "usd": 0.0 if reply.was_reused else reply.usd,
            "usd_of_answer": reply.usd,
            "was_reused": reply.was_reused,
            "status": reply.status,
            "reason": reply.reason,
            "dropped_parameters": ", ".join(reply.dropped_parameters) or None,
        }
        for index, reply in enumerate(replies)
    ]
    return pl.DataFrame(rows, schema=_SCHEMA)


def join_llm_calls(replies_by_purpose: Mapping[str, Sequence[ChatReply]]) -> pl.DataFrame:
    """The frames of a stage's batches under each other, `call_index` counted through."""
    frames = [llm_calls_frame(replies, purpose) for purpose, replies in replies_by_purpose.items()]
    joined = pl.concat([pl.DataFrame(schema=_SCHEMA), *frames])
    return joined.with_columns(pl.int_range(pl.len(), dtype=pl.Int32).alias("call_index"))
