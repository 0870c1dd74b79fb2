"""Requests sent through a provider's batch API: one file, one batch, answers within a day.

    open batches that hold one of the requests are gone on with     (batch_register.py)
    a file and a batch for the others                               (batch_submission.py)
    batches.retrieve, with growing waits                            until it has ended
    files.content of the output and the error file                  answers by custom_id

Calls are taken off the budget before they are submitted, and so are USD, by a cautious guess; where
its time is over while a batch is under way, BudgetSpent is raised, the batch goes on, and the next
run picks it up. A look or a download that fails in passing is repeated. A batch that the provider
has no room for is halved (batch_room.py), and lines that had a parameter too many are sent again
without it. Whatever an ended batch answered is kept, asked for now or not: it was paid for. What a
line of it says is batch_outcomes.py; chat_model.py makes replies of the outcomes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from assets.labels.config import LlmConfig
from assets.shared.chat import ChatRequest
from resources.batch_lines import chunks, input_line, output_lines
from resources.batch_outcomes import Outcome, has_no_room, outcome_of, why_none
from resources.batch_register import BatchRegister, OpenBatch
from resources.batch_room import BatchRoom
from resources.batch_submission import DAY_SECONDS, BatchSubmission, whole_batch
from resources.call_budget import BudgetSpent, CallBudget
from resources.call_failures import CallFailed
from resources.chat_endpoint import ChatEndpoint
from resources.chat_replies import ReplyReader
from resources.llm_cache import Answer, LlmCache

if TYPE_CHECKING:
    from openai.types import Batch

# After which a batch that cannot be looked at is not waited for.
LONGEST_LIFE = 2 * DAY_SECONDS
ENDED = ("completed", "failed", "expired", "cancelled")
WAIT_GROWTH, LONGEST_WAIT_RATIO = 1.5, 20.0
CHARACTERS_PER_TOKEN = 3

logger = logging.getLogger(__name__)


class ChatBatch:
    """Answers requests by batches of one endpoint, within a budget."""

    def __init__(
        self,
        config: LlmConfig,
        endpoint: ChatEndpoint,
        reader: ReplyReader,
        cache: LlmCache,
        budget: CallBudget,
    ) -> None:
        self._config = config
        self._endpoint = endpoint
        self._reader = reader
        self._cache = cache
        self._budget = budget
        self._register = BatchRegister(cache.path.parent)
        self._submission = BatchSubmission(endpoint, self._register, reader.asked)

    def outcomes(
        self, requests: Mapping[str, ChatRequest], on_progress: Callable[[int], None]
    ) -> dict[str, Outcome]:
        """By request hash; those that the budget does not suffice for are not among them.

        `on_progress` is told how many the provider is done with. Raises BudgetSpent where the
        budget's time ends before the batches do.
        """
        found: dict[str, Outcome] = {}
        room = BatchRoom()
        while True:
            n_found = len(found)
            to_ask = {h: request for h, request in requests.items() if h not in found}
            room.begin_round()
            batches, failed = self._batches_for(to_ask, room)
            ended = self._ended(batches, room, lambda n, before=n_found: on_progress(before + n))
            found |= {h: one for h, one in {**failed, **ended}.items() if h in to_ask}
            if room.refused and not room.halve():
                assert room.because is not None
                unanswered = room.promised | room.refused | room.sent_again
                rest = unanswered & to_ask.keys() - found.keys()
                return found | dict.fromkeys(rest, room.because)
            if not room.needs_another_round:
                return found

    def _batches_for(
        self, requests: Mapping[str, ChatRequest], room: BatchRoom
    ) -> tuple[list[OpenBatch], dict[str, Outcome]]:
        """Batches that hold the requests, submitted if need be; and those that no batch took."""
        batches: list[OpenBatch] = []
        failed: dict[str, Outcome] = {}
        with self._register.lock():
            for batch in self._register.open_batches(self._reader.asked):
                if batch.requests.keys().isdisjoint(requests):
                    continue
                try:
                    batches += self._submission.confirmed(batch)
                except CallFailed as failure:
                    words = f"{failure.reason}; or remove {self._register.path(batch)} to pay again"
                    failed |= dict.fromkeys(batch.requests, CallFailed(words))
            taken = {h for batch in batches for h in batch.requests} | failed.keys()
            to_send = {h: r for h, r in requests.items() if h not in taken}
            lines = self._within_budget(to_send, room)
            for chunk in chunks(lines, room.most):
                if room.is_one_at_a_time and batches:
                    room.n_left += len(chunk)
                    continue
                try:
                    batches.append(self._submission.submit({h: requests[h] for h in chunk}, lines))
                except CallFailed as failure:
                    failed |= dict.fromkeys(chunk, failure)
                    if failure.stops_batch:
                        failed |= dict.fromkeys([h for h in lines if h not in failed], failure)
                        break
        return batches, failed

    def _within_budget(
        self, requests: Mapping[str, ChatRequest], room: BatchRoom
    ) -> dict[str, str]:
        """Input lines by request hash, as far as the budget goes; their calls are taken off it."""
        lines: dict[str, str] = {}
        promised = 0.0
        for request_hash, request in requests.items():
            line = input_line(request_hash, self._endpoint.parameters(request))
            guess = Answer(
                model="",
                text="",
                prompt_tokens=len(line) // CHARACTERS_PER_TOKEN,
                completion_tokens=self._reader.most_tokens(request),
                price_factor=self._config.batch_price_factor,
            )
            promised += self._reader.usd(guess) or 0.0
            if self._budget.usd is not None and promised > self._budget.usd:
                break
            if request_hash not in room.promised and not self._budget.take_call():
                break
            room.promised.add(request_hash)
            lines[request_hash] = line
        return lines

    def _ended(
        self,
        batches: Sequence[OpenBatch],
        room: BatchRoom,
        on_progress: Callable[[int], None],
    ) -> dict[str, Outcome]:
        """What all of `batches` answered, once they have ended; `room` is told of those refused,
        and of requests to be sent again.
        """
        found: dict[str, Outcome] = {}
        waiting, wait = list(batches), self._config.batch_poll_seconds
        while waiting:
            n_done = len(found)
            for batch in list(waiting):
                state: Batch | None = None
                try:
                    state = self._state(batch)
                    has_ended = state.status in ENDED
                    collected = self._collected(batch, state, room) if has_ended else {}
                except CallFailed as failure:
                    has_ended = not self._is_waited_out(batch, failure)
                    is_gone = state is None and failure.status == 404
                    collected = self._lost(batch, failure, is_gone=is_gone) if has_ended else {}
                if has_ended:
                    waiting.remove(batch)
                    found |= collected
                elif state is not None and state.request_counts:
                    n_done += state.request_counts.completed
            on_progress(max(n_done, len(found)))
            if waiting:
                self._sleep(wait, waiting)
                wait = min(wait * WAIT_GROWTH, self._config.batch_poll_seconds * LONGEST_WAIT_RATIO)
        return found

    def _sleep(self, seconds: float, waiting: Sequence[OpenBatch]) -> None:
        deadline = self._budget.deadline
        left = seconds if deadline is None else min(seconds, deadline - time.time())
        if left <= 0:
            ids = ", ".join(str(batch.batch_id) for batch in waiting)
            raise BudgetSpent(
                f"{self._budget.spent_because}; the provider goes on with batch {ids}, the next "
                "run picks it up"
            )
        time.sleep(left)

    def _state(self, batch: OpenBatch) -> Batch:
        batch_id = str(batch.batch_id)
        return self._endpoint.retried(lambda client: whole_batch(client.batches.retrieve(batch_id)))

    def _is_waited_out(self, batch: OpenBatch, failure: CallFailed) -> bool:
        """Whether a look at a batch, or at what it answered, is worth another one."""
        is_young = time.time() < batch.submitted_at + LONGEST_LIFE
        if failure.may_pass and is_young:
            logger.warning("batch %s: %s; waiting on", batch.batch_id, failure.reason)
        return failure.may_pass and is_young

    def _collected(self, batch: OpenBatch, state: Batch, room: BatchRoom) -> dict[str, Outcome]:
        """The outcomes of an ended batch; its answers are kept, then it is forgotten. `room` is
        told where there are none, and which requests are to be sent again.
        """
        if has_no_room(state):
            room.note_refused(batch.requests, why_none(state, self._endpoint))
            self._register.remove(batch)
            return {}
        files = [
            self._content(name) for name in (state.output_file_id, state.error_file_id) if name
        ]
        lines = {line.request_hash: line for line in output_lines(files)}
        known = self._reader.kept(self._cache.read(batch.requests))
        found: dict[str, Outcome] = {}
        for request_hash, wants_answer_logprob in batch.requests.items():
            line = lines.get(request_hash)
            if line is None:
                found[request_hash] = why_none(state, self._endpoint)
                continue
            if self._endpoint.drop_refused_parameter(
                line.status,
                line.message,
                batch.perhaps_sent(request_hash),
                param=line.param,
                codes=line.codes,
            ):
                room.sent_again.add(request_hash)
                continue
            outcome = outcome_of(
                line,
                self._endpoint,
                wants_answer_logprob=wants_answer_logprob,
                price_factor=self._config.batch_price_factor,
            )
            if isinstance(outcome, Answer):
                dropped = tuple(batch.dropped.get(request_hash, ()))
                outcome = replace(outcome, dropped_parameters=dropped)
                if request_hash not in known:
                    self._budget.note_price(self._reader.usd(outcome))
                    if self._reader.is_kept(outcome):
                        self._cache.write(request_hash, outcome)
            found[request_hash] = outcome
        self._register.remove(batch)
        return found

    def _content(self, file_id: str) -> str:
        return self._endpoint.retried(lambda client: client.files.content(file_id).text)

    def _lost(self, batch: OpenBatch, failure: CallFailed, *, is_gone: bool) -> dict[str, Outcome]:
        """A batch that cannot be read now, which the next run tries again: it was paid for. Only
        one that the provider does not know any more is forgotten.
        """
        words = f"batch {batch.batch_id} could not be read: {failure.reason}"
        if is_gone:
            self._register.remove(batch)
        else:
            words += f"; the next run reads it, or remove {self._register.path(batch)} to pay again"
        return dict.fromkeys(batch.requests, CallFailed(words))
