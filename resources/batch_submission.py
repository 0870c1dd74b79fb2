"""A batch made at the provider, once: files.create(purpose=batch), then batches.create.

It is written down before it is made, under a key that it carries in its metadata: a run that is
killed in between, or hears nothing of it, finds it by that key (batch_register.py). It is forgotten
only where every answer said that there is none.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from assets.shared.chat import ChatRequest
from resources.batch_lines import ENDPOINT
from resources.batch_register import BatchRegister, OpenBatch
from resources.call_failures import CallFailed, TransientFailure
from resources.chat_endpoint import ChatEndpoint
from resources.refused_parameters import DROPPABLE

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import Batch

WINDOW = "24h"
DAY_SECONDS = 86_400
# The batch's metadata under which a run that was killed finds it again.
KEY = "featurelake_key"
NO_BATCHES = "an endpoint without /v1/batches needs llm.batch: false"
REQUEST_TIMEOUT = 408

logger = logging.getLogger(__name__)


class BatchSubmission:
    """Submits to one endpoint; `asked` is the model's name that is hashed."""

    def __init__(self, endpoint: ChatEndpoint, register: BatchRegister, asked: str) -> None:
        self._endpoint = endpoint
        self._register = register
        self._asked = asked

    def submit(self, requests: Mapping[str, ChatRequest], lines: Mapping[str, str]) -> OpenBatch:
        """A batch of `requests`, whose input lines are among `lines`. Raises CallFailed."""
        content = "".join(f"{lines[h]}\n" for h in requests).encode()
        batch = OpenBatch(
            asked=self._asked,
            requests={h: request.wants_answer_logprob for h, request in requests.items()},
            submitted_at=time.time(),
            dropped={
                h: dropped
                for h, request in requests.items()
                if (dropped := self._endpoint.dropped(request, self._endpoint.parameters(request)))
            },
            refused=sorted(set(DROPPABLE) - self._endpoint.droppable_parameters),
        )
        is_perhaps_made = False

        def create(client: OpenAI) -> Batch:
            nonlocal is_perhaps_made
            if is_perhaps_made and (made := _find(client, batch)) is not None:
                return made
            try:
                made = client.batches.create(
                    input_file_id=uploaded.id,
                    endpoint=ENDPOINT,
                    completion_window=WINDOW,
                    metadata={KEY: batch.key},
                )
                return whole_batch(made)
            except Exception as error:
                is_perhaps_made |= not _is_refusal(error)
                raise

        try:
            uploaded = self._endpoint.retried(
                lambda client: client.files.create(
                    file=(f"{batch.key}.jsonl", content), purpose="batch"
                )
            )
            self._register.write(batch)
            made = self._endpoint.retried(create)
        except CallFailed as failure:
            if is_perhaps_made:
                words = (
                    f"whether the batch was submitted is not known: {failure.reason}; the next run "
                    f"looks for it, or remove {self._register.path(batch)} to pay again"
                )
            else:
                self._register.remove(batch)
                words = f"the batch was not submitted: {failure.reason}; {NO_BATCHES}"
            raise CallFailed(words, stops_batch=failure.stops_batch) from None
        return self._with_id(batch, made)

    def confirmed(self, batch: OpenBatch) -> list[OpenBatch]:
        """The batch with its id; none where the run was killed before the provider made it."""
        if batch.batch_id is not None:
            return [batch]
        made = self._endpoint.retried(lambda client: _find(client, batch))
        if made is None:
            self._register.remove(batch)
            return []
        return [self._with_id(batch, made)]

    def _with_id(self, batch: OpenBatch, made: Batch) -> OpenBatch:
        batch = replace(batch, batch_id=made.id)
        self._register.write(batch)
        logger.info("batch %s: %d requests", made.id, len(batch.requests))
        return batch


def whole_batch(reply: Batch) -> Batch:
    """The reply. Raises TransientFailure where it is no batch: the client does not look, and
    gateways send errors with HTTP 200.
    """
    if not (getattr(reply, "id", None) and getattr(reply, "status", None)):
        raise TransientFailure("the reply is no batch, though it came with HTTP 200")
    return reply


def _is_refusal(error: Exception) -> bool:
    """Whether the provider itself answered that it made no batch: servers between give 5xx."""
    import openai

    return (
        isinstance(error, openai.APIStatusError)
        and error.status_code < 500
        and error.status_code != REQUEST_TIMEOUT
    )


def _find(client: OpenAI, batch: OpenBatch) -> Batch | None:
    """The provider's batch of this key, newest ones first; None where there is none."""
    for made in client.batches.list(limit=100):
        if (made.metadata or {}).get(KEY) == batch.key:
            return made
        if made.created_at < batch.submitted_at - DAY_SECONDS:
            return None
    return None
