"""What is asked of a chat model and what comes back: plain values, no client.

Stages build `ChatRequest`s (pure, testable) and read `ChatReply`s; resources/chat_model.py sends
them, caches them and turns every failure into a reply with a status and a reason.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

CallStatus = Literal["ok", "failed"]


@dataclass(frozen=True)
class ChatRequest:
    """One call: messages, an optional JSON schema for the answer, sampling, prompt identity.

    `prompt_name` and `prompt_version` say which prompt made it; `top_logprobs` > 0 asks for the
    log-probabilities of the first answer token, `wants_answer_logprob` for the whole answer's.
    """

    prompt_name: str
    prompt_version: str
    messages: tuple[Mapping[str, str], ...]
    json_schema: Mapping[str, Any] | None = None
    max_tokens: int = 64
    temperature: float = 0.0
    seed: int = 0
    top_logprobs: int = 0
    wants_answer_logprob: bool = False

    def request_hash(self, model: str) -> str:
        """sha256 (32 hex digits) of everything that determines the answer, and the model's name."""
        content = {
            "model": model,
            "messages": [dict(message) for message in self.messages],
            "json_schema": self.json_schema,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "top_logprobs": self.top_logprobs,
        }
        # Only where it is asked for: hashes from before there was such a thing stay.
        if self.wants_answer_logprob:
            content["wants_answer_logprob"] = True
        text = json.dumps(content, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class ChatReply:
    """What came back: raw text, or status "failed" and a reason; never an exception.

    `first_token_logprobs` maps answer tokens to nats (empty unless asked for); `answer_logprob` is
    the answer's own, in nats (shared/answer_logprob.py; None unless asked for); `was_reused` says
    that the call was answered from the cache; `usd` is None where the price is unknown. `is_final`
    says of a failed one that the same call would be answered in the same way. `n_calls` were made
    for it now, a repair of its JSON included; tokens, seconds and price are theirs together.
    `dropped_parameters` were not sent, as the endpoint refuses them.
    """

    request: ChatRequest
    request_hash: str
    model: str
    status: CallStatus
    text: str | None = None
    reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seconds: float = 0.0
    usd: float | None = None
    was_reused: bool = False
    is_final: bool = False
    first_token_logprobs: Mapping[str, float] = field(default_factory=dict)
    answer_logprob: float | None = None
    n_calls: int = 1
    dropped_parameters: tuple[str, ...] = ()


class Chat(Protocol):
    """Anything that answers a batch of requests, in order, one reply each, without raising."""

    def complete(self, requests: Sequence[ChatRequest], *, purpose: str) -> list[ChatReply]: ...
