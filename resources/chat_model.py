"""A batch of chat requests answered: in order, one reply each, never an exception.

Order of events: equal requests are joined, the cache answers what it knows, the rest go out over a
thread pool, and every answer is written to the cache at once. Where no other call can succeed (a
refused key, an unknown model, an endpoint that is down) the rest of the batch fails at once with
that reason. One call and its retries live in chat_endpoint.py, how an answer is read and mended in
chat_replies.py, the provider's own batches in chat_batch.py; what to ask belongs to the stages.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from assets.labels.config import LlmConfig
from assets.shared.chat import ChatReply, ChatRequest
from resources.batch_stop import BatchStop
from resources.call_budget import BudgetSpent, CallBudget
from resources.call_failures import CallFailed
from resources.chat_batch import ChatBatch
from resources.chat_endpoint import ChatEndpoint
from resources.chat_replies import ReplyReader, hashed_name
from resources.llm_cache import Answer, LlmCache

NOT_ENOUGH = "the budget does not suffice for the rest"

Progress = Callable[[int, int], None]

logger = logging.getLogger(__name__)


class ChatModel:
    """Implements assets.shared.chat.Chat for a study's LLM, with a cache and a price.

    `model` is the name recorded and hashed; `usd` of a reply is its price, also when it was
    reused: sum it over replies with `was_reused` false for what a run cost.
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
        self._asked = hashed_name(config, variables.get("OPENAI_BASE_URL", ""))
        self.on_progress = on_progress
        self._budget = budget or CallBudget()
        self._config = config
        self._reader = ReplyReader(config, self._asked)
        self._cache = LlmCache(cache_folder) if cache_folder is not None else None
        self._endpoint = _endpoint(config, variables)
        self._batch: ChatBatch | None = None
        if config.batch and not config.is_embedded:
            if self._cache is None:
                raise ValueError("llm.batch needs a cache folder: a batch outlives its run")
            self._batch = ChatBatch(config, self._endpoint, self._reader, self._cache, self._budget)

    def __repr__(self) -> str:
        return f"ChatModel(model={self.model!r}, {self._endpoint!r}, {self._cache!r})"

    def complete(self, requests: Sequence[ChatRequest], *, purpose: str) -> list[ChatReply]:
        """One reply a request, in order. `purpose` names the batch in the log."""
        hashes = [request.request_hash(self._asked) for request in requests]
        unique = dict(zip(hashes, requests, strict=True))
        known = self._known_answers(unique)
        replies = {
            request_hash: self._reader.reply(unique[request_hash], answers, n_reused=len(answers))
            for request_hash, answers in known.items()
            if self._reader.next_request(unique[request_hash], answers) is None
        }
        to_send = {h: request for h, request in unique.items() if h not in replies}
        logger.info("%s: %d requests, %d to send", purpose, len(requests), len(to_send))
        send = self._send if self._batch is None else self._send_batches
        sent = send(to_send, known, done=len(replies), total=len(unique))
        replies |= {reply.request_hash: reply for reply in sent}
        self._log_failures(purpose, replies)
        if len(sent) < len(to_send):
            raise BudgetSpent(
                f"{purpose}: {self._budget.spent_because or NOT_ENOUGH}; {len(sent)} of "
                f"{len(to_send)} calls "
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

    def _known_answers(self, requests: Mapping[str, ChatRequest]) -> dict[str, list[Answer]]:
        """What the cache has of each request's chain, the first answer and those to its repairs."""
        known: dict[str, list[Answer]] = {request_hash: [] for request_hash in requests}
        asked = {request_hash: request_hash for request_hash in requests}
        while asked and self._cache:
            found = self._reader.kept(self._cache.read(asked.values()))
            for request_hash, next_hash in asked.items():
                if next_hash in found:
                    known[request_hash].append(found[next_hash])
            following = {
                h: self._reader.next_request(requests[h], known[h])
                for h, next_hash in asked.items()
                if next_hash in found
            }
            asked = {h: one.request_hash(self._asked) for h, one in following.items() if one}
        return known

    def _send(
        self,
        requests: Mapping[str, ChatRequest],
        known: Mapping[str, Sequence[Answer]],
        *,
        done: int,
        total: int,
    ) -> list[ChatReply]:
        """Replies to the requests that the budget sufficed for."""
        self._report(done, total)
        if not requests:
            return []
        n_threads = min(self._config.calls_at_once, len(requests))
        stop = BatchStop(n_threads)
        replies: list[ChatReply] = []
        pool = ThreadPoolExecutor(n_threads, "chat")
        try:
            futures: list[Future[ChatReply | None]] = [
                pool.submit(self._reply, request, known[request_hash], stop)
                for request_hash, request in requests.items()
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

    def _reply(
        self, request: ChatRequest, known: Sequence[Answer], stop: BatchStop
    ) -> ChatReply | None:
        """None where the budget is spent before the request was settled."""
        answers, n_calls = list(known), 0
        while (to_send := self._reader.next_request(request, answers)) is not None:
            try:
                stop.check()
                if not self._budget.take_call():
                    return None
                n_calls += 1
                answer = self._endpoint.call(to_send, watch=stop)
            except CallFailed as failure:
                stop.note_failure(failure)
                reason = self._endpoint.scrub(failure.reason)
                return self._reader.failed(
                    request, reason, answers, n_reused=len(known), n_calls=n_calls
                )
            self._budget.note_price(self._reader.usd(answer))
            if self._cache and self._reader.is_kept(answer):
                self._cache.write(to_send.request_hash(self._asked), answer)
            answers.append(answer)
        return self._reader.reply(request, answers, n_reused=len(known))

    def _send_batches(
        self,
        requests: Mapping[str, ChatRequest],
        known: Mapping[str, Sequence[Answer]],
        *,
        done: int,
        total: int,
    ) -> list[ChatReply]:
        """As `_send`, by the provider's batches: one for the requests, one for their repairs."""
        assert self._batch is not None
        self._report(done, total)
        answers = {request_hash: list(known[request_hash]) for request_hash in requests}
        failures: dict[str, CallFailed] = {}
        while True:
            # What to send for each request that is open, by the hash that is sent.
            to_send = {
                one.request_hash(self._asked): (request_hash, one)
                for request_hash, request in requests.items()
                if request_hash not in failures
                and (one := self._reader.next_request(request, answers[request_hash])) is not None
            }
            if not to_send:
                break
            outcomes = self._batch.outcomes(
                {sent_hash: one for sent_hash, (_, one) in to_send.items()},
                lambda n_done: self._report(min(done + n_done, total), total),
            )
            for sent_hash, outcome in outcomes.items():
                request_hash, _ = to_send[sent_hash]
                if isinstance(outcome, CallFailed):
                    failures[request_hash] = outcome
                else:
                    answers[request_hash].append(outcome)
            if len(outcomes) < len(to_send):
                break
        replies: list[ChatReply] = []
        for request_hash, request in requests.items():
            n_reused, of_request = len(known[request_hash]), answers[request_hash]
            if request_hash in failures:
                reason = self._endpoint.scrub(failures[request_hash].reason)
                n_calls = len(of_request) - n_reused + 1
                replies.append(
                    self._reader.failed(
                        request, reason, of_request, n_reused=n_reused, n_calls=n_calls
                    )
                )
            elif self._reader.next_request(request, of_request) is None:
                replies.append(self._reader.reply(request, of_request, n_reused=n_reused))
        return replies

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
        retry_seconds=config.retry_seconds,
        calls_at_once=config.calls_at_once,
        extra_completion_tokens=config.extra_completion_tokens,
        reasoning_effort=config.reasoning_effort,
    )
