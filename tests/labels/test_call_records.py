"""Replies as rows of llm_calls."""

from __future__ import annotations

import json

from assets.labels.call_records import join_llm_calls, llm_calls_frame
from assets.labels.tables import LLM_CALLS
from assets.shared.chat import ChatReply, ChatRequest

PARTITION = {"site": "demo:m@L01.mlp_hidden", "fit": "snmf-k064", "stage": "labels"}
REQUEST = ChatRequest("p", "v", ({"role": "user", "content": "Ça va?"},))
OK = ChatReply(REQUEST, "h", "m", "ok", "yes", None, 5, 1, 0.2, 0.25)
REUSED = ChatReply(REQUEST, "h", "m", "ok", "yes", None, 5, 1, 0.2, 0.25, was_reused=True)
FAILED = ChatReply(REQUEST, "h", "m", "failed", reason="timeout")


def test_a_row_a_reply_and_reused_ones_cost_nothing() -> None:
    frame = llm_calls_frame([OK, REUSED, FAILED], "label")
    LLM_CALLS.conform(frame, PARTITION)
    assert frame["usd"].to_list() == [0.25, 0.0, None]
    assert frame["prompt_tokens"].to_list() == [5, 5, None]
    assert frame["status"].to_list() == ["ok", "ok", "failed"]
    assert json.loads(frame["prompt"][0]) == [{"role": "user", "content": "Ça va?"}]


def test_batches_are_counted_through() -> None:
    frame = join_llm_calls({"label": [OK, FAILED], "score": [OK]})
    LLM_CALLS.conform(frame, PARTITION)
    assert frame["call_index"].to_list() == [0, 1, 2]
    assert frame["purpose"].to_list() == ["label", "label", "score"]
    assert LLM_CALLS.conform(join_llm_calls({}), PARTITION).is_empty()
