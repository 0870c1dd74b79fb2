"""A batch of chat requests answered: in order, one reply each, never an exception.

Order of events: equal requests are joined, the cache answers what it knows, the rest go out over a
thread pool, and every completed answer is written to the cache at once. Where no other call can
succeed (a refused key, an unknown model, an endpoint that is down) the rest of the batch fails at
once with that reason. One call and its retries live in resources/chat_endpoint.py; what to ask and
how to read the answer belongs to the stages.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from assets.labels.config import LlmConfig
from assets.shared.chat import ChatReply, ChatRequest
from resources.call_budget import BudgetSpent, CallBudget
from resources.chat_endpoint import CallFailed, ChatEndpoint
from resources.json_answers import NotTheJsonAskedFor, json_answer
from resources.llm_cache import Answer, LlmCache

# Requests in a row (each with its own retries) without any answer: then the endpoint is down.
NO_ANSWERS_UNTIL_DOWN = 3

Progress = Callable[[int, int], None]

logger = logging.getLogger(__name__)


class ChatModel:
    """Implements assets.shared.chat.Chat for a study's LLM, with a cache and a price.

    `model` is the name recorded and hashed; `usd` of a reply is its price when it was made, also
    when it was reused: sum it over replies with `was_reused` false for what a run cost.
    """

    def __init__(
        self,
        config: LlmConfig,
        *,
        cache_folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        on_progress: Progress | None = None,
        budget: CallBudget | None = None,
    ) -> None:
        """`environment` (default os.environ) gives OPENAI_BASE_URL and OPENAI_API_KEY.

        Where `budget` is spent, a batch raises BudgetSpent once its calls under way have ended.

        Nothing is started or connected before the first request that the cache cannot answer.
        Raises LlmCacheError where the cache folder cannot be used.
        """
        self.model = config.recorded_name
        variables = os.environ if environment is None else environment
        # Two servers may give one name to two models.
        address = "" if config.is_embedded else variables.get("OPENAI_BASE_URL", "")
        self._asked = f"{self.model} at {address}" if address else self.model
        self.on_progress = on_progress
        self._budget = budget or CallBudget()
        self._config = config
        self._cache = LlmCache(cache_folder) if cache_folder is not None else None
        self._endpoint = _endpoint(config, variables)

    def __repr__(self) -> str:
        return f"ChatModel(model={self.model!r}, {self._endpoint!r}, {self._cache!r})"

    def complete(self, requests: Sequence[ChatRequest], *, purpose: str) -> list[ChatReply]:
        """One reply a request, in order. `purpose` names the batch in the log."""
        hashes = [request.request_hash(self._asked) for request in requests]
        unique = dict(zip(hashes, requests, strict=True))
        cached = self._cache.read(unique) if self._cache else {}
        replies = {
            request_hash: replace(self._read(unique[request_hash], answer), was_reused=True)
            for request_hash, answer in cached.items()
        }
        to_send = {h: request for h, request in unique.items() if h not in replies}
        logger.info("%s: %d requests, %d to send", purpose, len(requests), len(to_send))
        sent = self._send(to_send, done=len(replies), total=len(unique))
        replies |= {reply.request_hash: reply for reply in sent}
        self._log_failures(purpose, replies)
        if len(sent) < len(to_send):
            raise BudgetSpent(
                f"{purpose}: {self._budget.spent_because}; {len(sent)} of {len(to_send)} calls "
                "were made and are kept, the others are left for the next run"
            )

        in_order: list[ChatReply] = []
        seen: set[str] = set()
        for request_hash, request in zip(hashes, requests, strict=True):
            reply = replace(replies[request_hash], request=request)
            # A repeat within the batch was answered by the first one's call.
            in_order.append(replace(reply, was_reused=True) if request_hash in seen else reply)
            seen.add(request_hash)
        return in_order

    def _send(
        self, requests: Mapping[str, ChatRequest], *, done: int, total: int
    ) -> list[ChatReply]:
        self._report(done, total)
        if not requests:
            return []
        stop = _BatchStop()
        replies: list[ChatReply] = []
        pool = ThreadPoolExecutor(min(self._config.calls_at_once, len(requests)), "chat")
        try:
            futures: list[Future[ChatReply | None]] = [
                pool.submit(self._reply, request, stop) for request in requests.values()
            ]
            for future in as_completed(futures):
                reply = future.result()
                if reply is None:
                    continue
                replies.append(reply)
                self._report(done + len(replies), total)
        finally:
            pool.shutdown(cancel_futures=True)
        return replies

    def _reply(self, request: ChatRequest, stop: _BatchStop) -> ChatReply | None:
        """None where the budget is spent and nothing was sent."""
        try:
            stop.check()
            if not self._budget.take_call():
                return None
            answer = self._endpoint.call(request, may_go_on=stop.check)
        except CallFailed as failure:
            stop.note(failure)
            return self._failed(request, failure.reason)
        stop.note_answer()
        self._budget.note_price(self._usd(answer))
        reply = self._read(request, answer)
        if self._cache and (reply.status == "ok" or reply.is_final):
            self._cache.write(reply.request_hash, replace(answer, text=reply.text or ""))
        return reply

    def _read(self, request: ChatRequest, answer: Answer) -> ChatReply:
        """The reply that an answer makes: failed where it is not the JSON asked for."""
        reply = self._ok(request, answer)
        if request.json_schema is None:
            return reply
        try:
            return replace(reply, text=json_answer(answer.text, request.json_schema))
        except NotTheJsonAskedFor as error:
            cut = ""
            if (answer.completion_tokens or 0) >= request.max_tokens:
                cut = f"; it was cut off at max_tokens={request.max_tokens}"
            is_final = self._config.is_embedded
            return replace(reply, status="failed", reason=f"{error}{cut}", is_final=is_final)

    def _ok(self, request: ChatRequest, answer: Answer) -> ChatReply:
        return ChatReply(
            request=request,
            request_hash=request.request_hash(self._asked),
            model=self.model,
            status="ok",
            text=answer.text,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            seconds=answer.seconds,
            usd=self._usd(answer),
            first_token_logprobs=answer.first_token_logprobs,
        )

    def _failed(self, request: ChatRequest, reason: str) -> ChatReply:
        return ChatReply(
            request=request,
            request_hash=request.request_hash(self._asked),
            model=self.model,
            status="failed",
            reason=self._endpoint.scrub(reason),
        )

    def _usd(self, answer: Answer) -> float | None:
        if self._config.is_embedded:
            return 0.0
        prompt_price = self._config.usd_per_million_prompt_tokens
        completion_price = self._config.usd_per_million_completion_tokens
        n_prompt, n_completion = answer.prompt_tokens, answer.completion_tokens
        if prompt_price is None or completion_price is None:
            return None
        if n_prompt is None or n_completion is None:
            return None
        return (n_prompt * prompt_price + n_completion * completion_price) / 1e6

    def _report(self, done: int, total: int) -> None:
        if self.on_progress is not None:
            self.on_progress(done, total)

    def _log_failures(self, purpose: str, replies: Mapping[str, ChatReply]) -> None:
        failed = [reply for reply in replies.values() if reply.status != "ok"]
        if failed:
            logger.warning(
                "%s: %d of %d requests failed; the first: %s",
                purpose,
                len(failed),
                len(replies),
                failed[0].reason,
            )


class _BatchStop:
    """Whether the rest of a batch is worth trying, shared by its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reason: str | None = None
        self._no_answers = 0

    def check(self) -> None:
        """Raises CallFailed where the batch has stopped."""
        if self._reason is not None:
            raise CallFailed(self._reason)

    def note(self, failure: CallFailed) -> None:
        with self._lock:
            self._no_answers = self._no_answers + 1 if failure.is_no_answer else 0
            if self._reason is not None:
                return
            if failure.stops_batch:
                self._reason = f"not sent, as a call before it failed: {failure.reason}"
            elif self._no_answers >= NO_ANSWERS_UNTIL_DOWN:
                self._reason = (
                    f"endpoint down: {self._no_answers} requests in a row had no answer; the last: "
                    f"{failure.reason}. Start it or set OPENAI_BASE_URL, then run again"
                )

    def note_answer(self) -> None:
        with self._lock:
            self._no_answers = 0


def _endpoint(config: LlmConfig, environment: Mapping[str, str]) -> ChatEndpoint:
    if config.is_embedded:
        from resources.embedded_llm import embedded_endpoint

        return embedded_endpoint(config)
    return ChatEndpoint(
        model=config.model,
        base_url=environment.get("OPENAI_BASE_URL") or None,
        api_key=environment.get("OPENAI_API_KEY"),
        timeout_seconds=config.timeout_seconds,
        max_retries=config.max_retries,
    )
