"""The OpenAI clients of one endpoint, opened at first use: for calls, and for files and batches.

Calls go through an asynchronous one, since only a coroutine can be ended at any point of a call
(call_deadline.py). Neither tries again on its own (call_retries.py). A forked process opens its
own: connections of two processes would get each other's answers.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from resources.call_deadline import calls_loop

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

LOOPBACK = {"127.0.0.1", "localhost", "::1"}
# Sent where the endpoint needs no key; clients refuse to send none at all.
NO_KEY = "no-key"
# More than is ever shown of a page, so that none of its secrets is cut in two.
LONGEST_BEGINNING = 1000


_all: weakref.WeakSet[EndpointClients] = weakref.WeakSet()
# Kept, since to close them would meddle with the event loop of the parent.
_of_the_parent: list[Any] = []


class NoApiReply(Exception):
    """What came with a good status is a page or a text for people, as gateways send them; its
    beginning is in the words, secrets included.
    """


class EndpointClients:
    """`base_url` may be a function, called at first use; `timeout_seconds` is for next bytes."""

    def __init__(
        self,
        *,
        base_url: str | Callable[[], str] | None,
        api_key: SecretStr,
        timeout_seconds: float,
    ) -> None:
        self.base_url = base_url
        self._api_key = api_key
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._for_files: OpenAI | None = None
        self._for_calls: AsyncOpenAI | None = None
        self._closing: weakref.finalize[[AsyncOpenAI], EndpointClients] | None = None
        _all.add(self)

    def for_files(self) -> OpenAI:
        """Its calls raise NoApiReply too."""
        import openai

        with self._lock:
            if self._for_files is None:
                options, is_local = self._options()
                http = openai.DefaultHttpxClient(
                    trust_env=not is_local, event_hooks={"response": [_refuse_pages]}
                )
                self._for_files = openai.OpenAI(http_client=http, **options)
            return self._for_files

    def for_calls(self) -> AsyncOpenAI:
        """To be used in `call_deadline.within` only: its connections belong to that loop."""
        import openai

        with self._lock:
            if self._for_calls is None:
                options, is_local = self._options()
                http = openai.DefaultAsyncHttpxClient(trust_env=False) if is_local else None
                self._for_calls = openai.AsyncOpenAI(http_client=http, **options)
                self._closing = weakref.finalize(self, _close, self._for_calls)
                self._closing.atexit = False
            return self._for_calls

    def forget(self) -> None:
        """Begins without clients, and closes none: for a process forked off theirs."""
        _of_the_parent.extend((self._for_files, self._for_calls))
        self._for_files = self._for_calls = None
        # A thread that is not in this process may hold the old one.
        self._lock = threading.Lock()
        if self._closing is not None:
            self._closing.detach()

    def _options(self) -> tuple[dict[str, Any], bool]:
        """Options of a client, and whether the endpoint is on this machine: a proxy of the
        environment must not stand between this process and itself.
        """
        url = self.base_url() if callable(self.base_url) else self.base_url
        options = {
            "base_url": url,
            "api_key": self._api_key.get_secret_value() or NO_KEY,
            "timeout": self._timeout_seconds,
            "max_retries": 0,
        }
        return options, urlsplit(url or "").hostname in LOOPBACK


def _refuse_pages(response: Any) -> None:
    """Raises NoApiReply for a reply of files and batches that the client would give as a text."""
    kind = response.headers.get("content-type", "").split(";")[0]
    if not response.is_success or kind.endswith("json"):
        return
    response.read()
    if response.url.path.endswith("/content"):  # a file of any text
        is_page = response.content[:LONGEST_BEGINNING].lstrip().startswith(b"<")
    else:
        try:
            is_page = not isinstance(response.json(), dict)
        except ValueError:
            is_page = True
    if is_page:
        text = response.text[:LONGEST_BEGINNING]
        raise NoApiReply(f"no API reply but {kind or 'no known type'}, which begins: {text!r}")


def _close(client: AsyncOpenAI) -> None:
    asyncio.run_coroutine_threadsafe(client.close(), calls_loop())


def _forget_those_of_the_parent() -> None:
    for clients in list(_all):
        clients.forget()


os.register_at_fork(after_in_child=_forget_those_of_the_parent)
