"""A batch made at the provider, once: files.create(purpose=batch), then batches.create.

It is written down before it is made, under a key that it carries in its metadata: a run that is
killed in between, or hears nothing of it, finds it by that key (batch_register.py).
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
from resources.call_failures import CallFailed
from resources.chat_endpoint import ChatEndpoint

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import Batch

WINDOW = "24h"
DAY_SECONDS = 86_400
# The batch's metadata under which a run that was killed finds it again.
KEY = "featurelake_key"
NO_BATCHES = "an endpoint without /v1/batches needs llm.batch: false"

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
        )
        attempts = 0

        def create(client: OpenAI) -> Batch:
            nonlocal attempts
            attempts += 1
            # An attempt without an answer may have made one all the same.
            made = _find(client, batch) if attempts > 1 else None
            return made or client.batches.create(
                input_file_id=uploaded.id,
                endpoint=ENDPOINT,
                completion_window=WINDOW,
                metadata={KEY: batch.key},
            )

        try:
            uploaded = self._endpoint.retried(
                lambda client: client.files.create(
                    file=(f"{batch.key}.jsonl", content), purpose="batch"
                )
            )
            self._register.write(batch)
            made = self._endpoint.retried(create)
        except CallFailed as failure:
            if failure.status is not None:
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


def _find(client: OpenAI, batch: OpenBatch) -> Batch | None:
    """The provider's batch of this key, newest ones first; None where there is none."""
    for made in client.batches.list(limit=100):
        if (made.metadata or {}).get(KEY) == batch.key:
            return made
        if made.created_at < batch.submitted_at - DAY_SECONDS:
            return None
    return None
