"""One call to an OpenAI-compatible endpoint: attempts, waits, and why it failed in words.

An attempt ends after `timeout_seconds`, whatever the endpoint does (call_deadline.py); of questions
about files and batches, which may be large, only a wait for the next bytes does. Which failures are
tried again, and when, is call_retries.py. Each attempt of a call also tells the limit of calls at
once how it went (concurrency_limit.py) and waits without holding a place. A parameter that the
endpoint refuses by name (newer models refuse `max_tokens` or `temperature`, some servers know no
`seed`; refused_parameters.py) is renamed or dropped, logged, remembered and noted with the answer.
No reason ever holds the key. What errors mean stands in call_failures.py; batches of calls, the
cache and costs live in chat_model.py.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pydantic import SecretStr

from assets.shared.chat import ChatRequest
from resources.call_deadline import within
from resources.call_failures import CallFailed, CallRefused, TransientFailure, failure_of
from resources.call_retries import CallRetries, wait_asked_for
from resources.completion_answers import LONGEST_REFUSAL, answer_of, error_in
from resources.concurrency_limit import ConcurrencyLimit
from resources.endpoint_clients import EndpointClients, NoApiReply
from resources.llm_cache import Answer
from resources.refused_parameters import DROPPABLE, STATUSES, blamed, refused_parameter

if TYPE_CHECKING:
    from openai import OpenAI

MAX_TOP_LOGPROBS = 20
# Of max_tokens, where that is refused.
NEWER_NAME = "max_completion_tokens"
# Shorter ones are place-holders such as "none", and words of ordinary text.
SHORTEST_KEY = 8

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Watch(Protocol):
    """Looks on as attempts end, and says when the rest is not worth trying."""

    def check(self) -> None:
        """Raises CallFailed where no further attempt should be made."""
        ...

    def note_attempt(self, no_answer_because: str | None) -> None:
        """An attempt got an answer of any kind (None), or nobody spoke, and why."""
        ...


class ChatEndpoint:
    """Address, key and limits of an endpoint. `base_url` may be a function, called at first use."""

    def __init__(
        self,
        *,
        model: str,
        base_url: str | Callable[[], str] | None,
        api_key: str | None,
        timeout_seconds: float,
        max_retries: int,
        retry_seconds: float = 300.0,
        calls_at_once: int = 1,
        extra_completion_tokens: int = 0,
        reasoning_effort: str | None = None,
        schema_parameters: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        self.model = model
        self._api_key = SecretStr(api_key or "")
        self._clients = EndpointClients(
            base_url=base_url, api_key=self._api_key, timeout_seconds=timeout_seconds
        )
        self._timeout_seconds = timeout_seconds
        self._retries = CallRetries(max_retries=max_retries, retry_seconds=retry_seconds)
        self._extra_completion_tokens = extra_completion_tokens
        self._reasoning_effort = reasoning_effort
        self.limit = ConcurrencyLimit(calls_at_once)
        self._schema_parameters = schema_parameters or _response_format
        self._lock = threading.Lock()
        self._refused: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        url = self._clients.base_url
        url = "started at first use" if callable(url) else url
        return f"ChatEndpoint(model={self.model!r}, base_url={self.scrub(str(url))!r})"

    def scrub(self, text: str) -> str:
        """`text` without the key, anything that looks like one, or a password in an address."""
        text = self.without_key(text)
        text = re.sub(r"\bsk-[\w*.\-]{4,}", "[key]", text)
        text = re.sub(r"(?i)\bbearer\s+[\w.\-]{8,}", "Bearer [key]", text)
        return re.sub(r"://[^/\s@]+@", "://[key]@", text)

    def without_key(self, text: str) -> str:
        """`text` without the key: for what a model wrote, which may look like anything else."""
        key = self._api_key.get_secret_value()
        return text.replace(key, "[key]") if len(key) >= SHORTEST_KEY else text

    def call(self, request: ChatRequest, *, watch: Watch) -> Answer:
        """The answer to one request, a refusal included. Raises CallFailed, whatever happens."""
        return self._retries.run(lambda: self._watched_attempt(request, watch))

    def retried(self, ask: Callable[[OpenAI], T]) -> T:
        """What `ask` gets from the client for files and batches, with the same retries. Raises
        CallFailed, whatever happens.
        """
        return self._retries.run(lambda: self._told(lambda: ask(self._clients.for_files())))

    def _watched_attempt(self, request: ChatRequest, watch: Watch) -> Answer:
        with self.limit.call() as under_way:
            watch.check()
            try:
                answer = self._told(lambda: self._attempt(request))
            except TransientFailure as error:
                under_way.was_overload = True
                watch.note_attempt(error.reason if error.is_no_answer else None)
                raise
            watch.note_attempt(None)
            return answer

    def _attempt(self, request: ChatRequest) -> Answer:
        import openai

        for _ in range(len(DROPPABLE) + 1):
            parameters = self.parameters(request)
            client = self._clients.for_calls()
            started = time.perf_counter()
            try:
                call = client.chat.completions.create(**parameters)
                completion = within(self._timeout_seconds, call)
            except openai.APIError as error:
                status = getattr(error, "status_code", 0)
                param, message = blamed(error.body)
                if self.drop_refused_parameter(
                    status, message or error.message, parameters, param=param, codes=_codes(error)
                ):
                    continue
                return self._no_failure(self.failure(error))
            if (said := error_in(completion)) is not None:
                return self._no_failure(self.failure_with_200(*said))
            answer = answer_of(
                completion,
                model=self.model,
                wants_answer_logprob=request.wants_answer_logprob,
                without_secrets=self.without_key,
                seconds=time.perf_counter() - started,
            )
            return replace(answer, dropped_parameters=self.dropped(request, parameters))
        raise CallFailed("the endpoint refuses every parameter of the request")

    def _told(self, attempt: Callable[[], T]) -> T:
        """What an attempt returns. Raises CallFailed, CallRefused or TransientFailure only."""
        import openai

        try:
            return attempt()
        except (CallFailed, CallRefused, TransientFailure):
            raise
        except openai.APIError as error:
            raise self.failure(error) from None
        except TimeoutError:
            raise self._no_answer_in_time() from None
        except json.JSONDecodeError as error:  # cut off on its way
            raise TransientFailure(f"reply could not be read: {error}") from None
        except NoApiReply as error:
            raise TransientFailure(self.scrub(str(error))[:200]) from None
        except Exception as error:  # a reply that is none, a server not starting
            reason = f"{type(error).__name__}: {error}"
            raise CallFailed(f"reply could not be read: {self.scrub(reason)[:300]}") from None

    def _no_failure(self, failure: CallFailed | CallRefused | TransientFailure) -> Answer:
        """A refusal, which is an answer; raises what is none."""
        if isinstance(failure, CallRefused):
            return self.refusal(failure)
        raise failure from None

    def _no_answer_in_time(self) -> TransientFailure:
        return TransientFailure(f"no answer within {self._timeout_seconds:g} s", is_no_answer=True)

    def failure(self, error: Any) -> CallFailed | CallRefused | TransientFailure:
        """What an openai.APIError stands for (call_failures.py)."""
        import openai

        if isinstance(error, openai.APITimeoutError):
            return self._no_answer_in_time()
        if isinstance(error, openai.APIConnectionError):
            cause = error.__cause__ or error
            reason = self.scrub(f"no connection to the LLM endpoint: {cause}")[:300]
            return TransientFailure(reason, is_no_answer=True)
        message = self._message(error)
        if not isinstance(error, openai.APIStatusError):
            return CallFailed(f"reply could not be read: {message}")
        return failure_of(
            error.status_code,
            _codes(error),
            message,
            model=self.model,
            wait_seconds=wait_asked_for(error.response.headers),
        )

    def failure_with_200(
        self, status: int, codes: set[str], message: str
    ) -> CallFailed | CallRefused | TransientFailure:
        """What an error stands for that came as if it were an answer (completion_answers.py)."""
        words = f"{self.scrub(message)[:250]} (sent with HTTP 200)"
        return failure_of(status, codes, words, model=self.model)

    def refusal(self, failure: CallRefused) -> Answer:
        """A refused prompt as the answer that it is, so that it is kept; tokens are not told."""
        refusal = self.scrub(str(failure))[:LONGEST_REFUSAL]
        return Answer(model=self.model, text="", finish_reason="content_filter", refusal=refusal)

    def _message(self, error: Any) -> str:
        _, message = blamed(error.body)
        return self.scrub(message or error.message)[:300]

    @property
    def droppable_parameters(self) -> frozenset[str]:
        """Optional parameters that it has not refused so far."""
        return frozenset(DROPPABLE) - self._refused

    def drop_refused_parameter(
        self,
        status: int,
        message: str,
        sent: Collection[str],
        *,
        param: str | None = None,
        codes: Collection[str] = (),
    ) -> bool:
        """Whether an error answer refuses an optional parameter, which is not sent from now on;
        `codes` are the error's code and type.
        """
        is_one = status in STATUSES
        name = refused_parameter(message, param, sent, codes) if is_one else None
        if name is None:
            return False
        with self._lock:
            is_new = name not in self._refused
            self._refused |= {name}
        if is_new:
            change = f"as {NEWER_NAME}" if name == "max_tokens" else "without it"
            logger.warning("%s refuses %s; sent %s from now on", self.model, name, change)
        return True

    def dropped(self, request: ChatRequest, sent: Collection[str]) -> tuple[str, ...]:
        """What an answer was made without; max_tokens is renamed, not dropped."""
        wanted = self._all_parameters(request).keys() - {"max_tokens"}
        return tuple(sorted(wanted - set(sent)))

    def parameters(self, request: ChatRequest) -> dict[str, Any]:
        """The body of a call, without the parameters that the endpoint has refused so far."""
        parameters = self._all_parameters(request)
        for name in self._refused:
            value = parameters.pop(name, None)
            if name == "max_tokens":
                parameters[NEWER_NAME] = value
            elif name == "logprobs":
                parameters.pop("top_logprobs", None)
        return parameters

    def _all_parameters(self, request: ChatRequest) -> dict[str, Any]:
        parameters: dict[str, Any] = {
            "model": self.model,
            "messages": [dict(message) for message in request.messages],
            "max_tokens": request.max_tokens + self._extra_completion_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
        }
        if self._reasoning_effort is not None:
            parameters["reasoning_effort"] = self._reasoning_effort
        if request.top_logprobs or request.wants_answer_logprob:
            parameters["logprobs"] = True
        if request.top_logprobs:
            parameters["top_logprobs"] = min(request.top_logprobs, MAX_TOP_LOGPROBS)
        if request.json_schema is not None:
            parameters |= self._schema_parameters(request.json_schema)
        return parameters


def _codes(error: Any) -> set[str]:
    """The code and type of an openai.APIError."""
    return {str(word) for word in (error.code, error.type) if word}


def _response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    json_schema = {"name": "answer", "schema": dict(schema), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": json_schema}}
