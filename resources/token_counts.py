"""How many tokens LLM calls will take, before any is made.

Of a prompt that this LLM was asked before, with the same wording: the mean of those calls in the
lake. Else from the text: with the embedded LLM by its own tokenizer and chat template (llama.cpp's
/apply-template and /tokenize), with others by pieces: a word of 7 letters or less is a piece, a
longer one more, so are each digit, run of signs and line end. Measured on this project's prompts
and the bundled corpus, a piece is 0.91 to 1.07 tokens of Gemma 3's tokenizer (262k tokens) and 0.93
to 1.08 of SmolLM2's (49k); characters over 3.7 were 0.79 to 1.32. Calls in the lake correct it for
their LLM. 4 tokens more for each message's role and bounds, as in OpenAI's chat format. (No
tokenizer of OpenAI's comes without a download.)
"""

from __future__ import annotations

import json
import logging
import re
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from assets.labels.config import LlmConfig
from assets.labels.tables import LLM_CALLS
from assets.shared.chat import ChatRequest
from resources.embedded_llm import EmbeddedLlmError, embedded_base_url
from resources.lake import Lake

PIECES = re.compile(r"[^\W\d_]+|\d|[^\w\s]+|\n+|_")
LETTERS_PER_PIECE = 7
TOKENS_PER_MESSAGE = 4
SECONDS_TO_TOKENIZE = 60.0
MOST_CALLS_READ = 2000
_ANSWERED = (
    "llm_model = ? AND status = 'ok' "
    "AND prompt_tokens IS NOT NULL AND completion_tokens IS NOT NULL"
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tokens:
    """Tokens of one call, or of several together."""

    prompt: float
    completion: float

    def times(self, n: float) -> Tokens:
        return Tokens(n * self.prompt, n * self.completion)


class TokenCounter:
    """Counts for one LLM; what the lake knows is read once."""

    def __init__(self, llm: LlmConfig, lake: Lake) -> None:
        self._llm = llm
        self._lake = lake
        self._tokenize = _embedded_tokenizer(llm) if llm.is_embedded else None
        self._is_asked = LLM_CALLS.name in lake.table_names()

    @cached_property
    def _means(self) -> Mapping[tuple[str, str], Tokens]:
        """(name, version) of a prompt → tokens of its mean call."""
        if not self._is_asked:
            return {}
        rows = self._lake.query(
            "SELECT prompt_name, prompt_version, avg(prompt_tokens), avg(completion_tokens) FROM "
            "(SELECT DISTINCT ON (request_hash) prompt_name, prompt_version, prompt_tokens, "
            f"completion_tokens FROM {LLM_CALLS.name} WHERE {_ANSWERED}) GROUP BY ALL",
            [self._llm.recorded_name],
        )
        return {(name, version): Tokens(*means) for name, version, *means in rows.iter_rows()}

    @cached_property
    def _tokens_per_piece(self) -> float:
        """As calls tell, those of the MOST_CALLS_READ first hashes: an even draw."""
        if not self._is_asked:
            return 1.0
        calls = self._lake.query(
            f"SELECT request_hash, prompt, prompt_tokens FROM {LLM_CALLS.name} WHERE {_ANSWERED} "
            f"ORDER BY request_hash LIMIT {MOST_CALLS_READ}",
            [self._llm.recorded_name],
        ).unique("request_hash", maintain_order=True)
        messages = [json.loads(text) for text in calls["prompt"].to_list()]
        pieces = sum(map(_pieces_in, messages))
        n_tokens = int(calls["prompt_tokens"].sum()) - TOKENS_PER_MESSAGE * sum(map(len, messages))
        return n_tokens / pieces if pieces and n_tokens > 0 else 1.0

    def of_prompt(self, example: ChatRequest, answer: str) -> Tokens:
        """Tokens of a call like `example`, where no such call was made answered by `answer`."""
        known = self._means.get((example.prompt_name, example.prompt_version))
        return known or Tokens(self._count(example.messages), self._n_completion(example, answer))

    def _count(self, messages: Sequence[Mapping[str, str]]) -> float:
        if self._tokenize is not None:
            try:
                return self._tokenize(messages)
            except (
                EmbeddedLlmError,
                OSError,
            ) as error:  # not installed: a plan is made all the same
                logger.warning("tokens are counted by pieces: %s", error)
                self._tokenize = None
        n_of_text = self._tokens_per_piece * _pieces_in(messages)
        return n_of_text + TOKENS_PER_MESSAGE * len(messages)

    def _n_completion(self, request: ChatRequest, answer: str) -> float:
        # One more ends the answer, where the limit leaves room for it.
        return min(request.max_tokens, self._tokens_per_piece * n_pieces(answer) + 1)


def n_pieces(text: str) -> int:
    """About as many tokens as a tokenizer makes of a text."""
    return sum(-(-len(piece) // LETTERS_PER_PIECE) for piece in PIECES.findall(text))


def _pieces_in(messages: Sequence[Mapping[str, str]]) -> int:
    return sum(n_pieces(message["content"]) for message in messages)


def _embedded_tokenizer(llm: LlmConfig) -> Callable[[Sequence[Mapping[str, str]]], int]:
    def count(messages: Sequence[Mapping[str, str]]) -> int:
        url = embedded_base_url(
            n_parallel=llm.calls_at_once, context_tokens=llm.embedded_context
        ).removesuffix("/v1")
        written = _post(f"{url}/apply-template", {"messages": [dict(m) for m in messages]})
        tokens = _post(f"{url}/tokenize", {"content": written["prompt"], "add_special": True})
        return len(tokens["tokens"])

    return count


def _post(url: str, content: Mapping[str, Any]) -> Any:
    request = urllib.request.Request(
        url, json.dumps(content).encode(), {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=SECONDS_TO_TOKENIZE) as reply:
        return json.load(reply)
