"""One call to an OpenAI-compatible endpoint: attempts, waits, and why it failed in words.

Retried with growing, jittered waits (stamina): 429 and 5xx, obeying Retry-After, up to
`max_retries` times; timeouts and refused or lost connections at most twice, so that a dead endpoint
is known soon. A parameter that the endpoint refuses by name (newer models refuse `max_tokens` or
`temperature`, some servers know no `seed`) is renamed or dropped, logged and remembered.
No reason ever holds the key. Batches, the cache and costs live in resources/chat_model.py.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from assets.shared.chat import ChatRequest
from resources.llm_cache import Answer

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.chat import ChatCompletion

MAX_LOST_CONNECTION_RETRIES = 2
MAX_TOP_LOGPROBS = 20
LONGEST_WAIT_SECONDS = 60.0
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
# Sent where the endpoint needs no key; clients refuse to send none at all.
NO_KEY = "no-key"
# Shorter ones are place-holders such as "none", and words of ordinary text.
SHORTEST_KEY = 8
DROPPABLE = ("max_tokens", "temperature", "seed", "top_logprobs", "logprobs", "response_format")

logger = logging.getLogger(__name__)


class CallFailed(Exception):
    """A call that is over. `stops_batch`: no other can succeed; `is_no_answer`: nobody spoke."""

    def __init__(
        self, reason: str, *, stops_batch: bool = False, is_no_answer: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.stops_batch = stops_batch
        self.is_no_answer = is_no_answer


class _Transient(Exception):
    """An attempt failed in a way that may pass; its text is free of secrets (it gets logged)."""

    def __init__(self, reason: str, *, wait_seconds: float | None, is_no_answer: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_seconds = wait_seconds
        self.is_no_answer = is_no_answer


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
        schema_parameters: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        self.model = model
        self._base_url = base_url
        self._api_key = SecretStr(api_key or "")
        self._timeout_seconds = timeout_seconds
        self._max_retries = max_retries
        self._schema_parameters = schema_parameters or _response_format
        self._client: OpenAI | None = None
        self._client_lock = threading.Lock()
        self._refused: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        url = "started at first use" if callable(self._base_url) else self._base_url
        return f"ChatEndpoint(model={self.model!r}, base_url={self.scrub(str(url))!r})"

    def scrub(self, text: str) -> str:
        """`text` without the key, anything that looks like one, or a password in an address."""
        text = self._without_key(text)
        text = re.sub(r"\bsk-[\w*.\-]{4,}", "[key]", text)
        text = re.sub(r"(?i)\bbearer\s+[\w.\-]{8,}", "Bearer [key]", text)
        return re.sub(r"://[^/\s@]+@", "://[key]@", text)

    def _without_key(self, text: str) -> str:
        key = self._api_key.get_secret_value()
        return text.replace(key, "[key]") if len(key) >= SHORTEST_KEY else text

    def call(self, request: ChatRequest, *, may_go_on: Callable[[], None]) -> Answer:
        """The answer to one request. `may_go_on` raises CallFailed where the batch has stopped.

        Raises CallFailed, whatever happens.
        """
        import stamina

        lost = 0

        def wait_or_give_up(error: Exception) -> bool | float:
            nonlocal lost
            if not isinstance(error, _Transient):
                return False
            lost += error.is_no_answer
            if lost > MAX_LOST_CONNECTION_RETRIES:
                return False
            return True if error.wait_seconds is None else error.wait_seconds

        attempts = stamina.retry_context(
            on=wait_or_give_up,
            attempts=self._max_retries + 1,
            timeout=None,
            wait_initial=0.25,
            wait_max=30.0,
            wait_jitter=0.25,
        )
        try:
            for attempt in attempts:
                with attempt:
                    may_go_on()
                    return self._attempt(request)
        except _Transient as error:
            raise CallFailed(error.reason, is_no_answer=error.is_no_answer) from None
        raise CallFailed("no attempt was made; max_retries must be 0 or more")

    def _attempt(self, request: ChatRequest) -> Answer:
        import openai

        for _ in range(len(DROPPABLE) + 1):
            parameters = self._parameters(request)
            try:
                client = self._open_client()
                started = time.perf_counter()
                completion = client.chat.completions.create(**parameters)
                return self._answer(completion, time.perf_counter() - started)
            except openai.BadRequestError as error:
                name = _refused_parameter(error, parameters)
                if name is None:
                    raise CallFailed(self._words(error)) from None
                logger.warning("%s refuses %s; sent without it from now on", self.model, name)
                self._refused |= {name}
            except openai.APIError as error:
                raise self._failure(error) from None
            except CallFailed:
                raise
            except Exception as error:  # a reply that is no chat completion, a server not starting
                reason = f"{type(error).__name__}: {error}"
                raise CallFailed(f"reply could not be read: {self.scrub(reason)[:300]}") from None
        raise CallFailed("the endpoint refuses every parameter of the request")

    def _failure(self, error: Any) -> Exception:
        import openai

        if isinstance(error, openai.APITimeoutError):
            reason = f"no answer within {self._timeout_seconds:g} s"
            return _Transient(reason, wait_seconds=None, is_no_answer=True)
        if isinstance(error, openai.APIConnectionError):
            cause = error.__cause__ or error
            reason = self.scrub(f"no connection to the LLM endpoint: {cause}")[:300]
            return _Transient(reason, wait_seconds=None, is_no_answer=True)
        if not isinstance(error, openai.APIStatusError):
            return CallFailed(f"reply could not be read: {self._words(error)}")
        reason = self._words(error)
        if error.status_code == 401:
            return CallFailed(
                f"{reason}; the endpoint refuses the key in OPENAI_API_KEY: set a valid one",
                stops_batch=True,
            )
        if error.status_code == 404:
            return CallFailed(
                f"{reason}; check the study's llm.model ({self.model!r}) and OPENAI_BASE_URL",
                stops_batch=True,
            )
        if error.code == "insufficient_quota":
            return CallFailed(f"{reason}; the account has no quota left", stops_batch=True)
        if error.status_code in (408, 409, 429) or error.status_code >= 500:
            wait = _retry_after(error.response.headers.get("retry-after"))
            return _Transient(reason, wait_seconds=wait, is_no_answer=False)
        return CallFailed(reason)

    def _words(self, error: Any) -> str:
        status = f"HTTP {error.status_code}: " if hasattr(error, "status_code") else ""
        body = error.body
        message = body.get("message") if isinstance(body, dict) else None
        return self.scrub(f"{status}{message or error.message}")[:300]

    def _parameters(self, request: ChatRequest) -> dict[str, Any]:
        parameters: dict[str, Any] = {
            "model": self.model,
            "messages": [dict(message) for message in request.messages],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
        }
        if request.top_logprobs:
            parameters["logprobs"] = True
            parameters["top_logprobs"] = min(request.top_logprobs, MAX_TOP_LOGPROBS)
        if request.json_schema is not None:
            parameters |= self._schema_parameters(request.json_schema)
        for name in self._refused:
            value = parameters.pop(name, None)
            if name == "max_tokens":
                parameters["max_completion_tokens"] = value
            elif name == "logprobs":
                parameters.pop("top_logprobs", None)
        return parameters

    def _open_client(self) -> OpenAI:
        import openai

        with self._client_lock:
            if self._client is None:
                url = self._base_url() if callable(self._base_url) else self._base_url
                # A proxy of the environment must not stand between this process and itself.
                is_local = urlsplit(url or "").hostname in LOOPBACK
                self._client = openai.OpenAI(
                    base_url=url,
                    api_key=self._api_key.get_secret_value() or NO_KEY,
                    timeout=self._timeout_seconds,
                    max_retries=0,
                    http_client=openai.DefaultHttpxClient(trust_env=False) if is_local else None,
                )
            return self._client

    def _answer(self, completion: ChatCompletion, seconds: float) -> Answer:
        choices = getattr(completion, "choices", None)
        if not choices:
            shown = self.scrub(str(completion))[:80]
            raise CallFailed(f"reply is no chat completion (no choices): {shown!r}")
        choice, usage = choices[0], completion.usage
        refusal = getattr(choice.message, "refusal", None)
        if refusal:
            raise CallFailed(f"the model refused: {self.scrub(refusal)[:200]}")
        return Answer(
            model=self.model,
            text=self._without_key(choice.message.content or ""),
            prompt_tokens=usage.prompt_tokens if usage else None,
            completion_tokens=usage.completion_tokens if usage else None,
            seconds=seconds,
            first_token_logprobs=_first_token_logprobs(choice.logprobs),
        )


def _response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    json_schema = {"name": "answer", "schema": dict(schema), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": json_schema}}


def _refused_parameter(error: Any, parameters: Mapping[str, Any]) -> str | None:
    """The optional parameter that a 400 complains of, if its `param` or message names one."""
    named = f"{error.param or ''} {error.message}"
    return next((n for n in DROPPABLE if n in parameters and re.search(rf"\b{n}\b", named)), None)


def _retry_after(header: str | None) -> float | None:
    try:
        return min(float(header), LONGEST_WAIT_SECONDS) if header else None
    except ValueError:
        return None


def _first_token_logprobs(logprobs: Any) -> dict[str, float]:
    """Answer token → nats, at the first generated token that is not white space."""
    for token in (logprobs.content if logprobs else None) or ():
        if token.token.strip():
            best: dict[str, float] = {}
            for candidate in token.top_logprobs or ():
                best.setdefault(candidate.token, candidate.logprob)
            return best
    return {}
