"""The OpenAI clients of one endpoint, opened at first use: for calls, and for files and batches.

Calls go through an asynchronous one, since only a coroutine can be ended at any point of a call
(call_deadline.py). Neither tries again on its own (call_retries.py).
"""

from __future__ import annotations

import asyncio
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

    def for_files(self) -> OpenAI:
        import openai

        with self._lock:
            if self._for_files is None:
                options, is_local = self._options()
                http = openai.DefaultHttpxClient(trust_env=False) if is_local else None
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
                weakref.finalize(self, _close, self._for_calls).atexit = False
            return self._for_calls

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


def _close(client: AsyncOpenAI) -> None:
    asyncio.run_coroutine_threadsafe(client.close(), calls_loop())
