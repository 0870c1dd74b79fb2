"""A clock over a whole call: it ends after so many seconds, whatever the other side does.

A client's own timeout is for the next bytes (httpx): a server that sends one now and then keeps a
call open for ever. A coroutine can be cancelled at any point, which closes its connection; so calls
run in an event loop of their own, in one daemon thread of the process, and threads wait for them.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_loops: list[asyncio.AbstractEventLoop] = []


def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns; raises TimeoutError where it takes longer, and cancels it."""

    async def timed() -> T:
        async with asyncio.timeout(seconds):
            return await work

    future = asyncio.run_coroutine_threadsafe(timed(), calls_loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def calls_loop() -> asyncio.AbstractEventLoop:
    """The loop that calls run in, started at first use."""
    with _lock:
        if not _loops:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="llm calls", daemon=True).start()
            _loops.append(loop)
        return _loops[0]


def _begin_anew() -> None:
    """A forked process has the loop without its thread, and a lock that another may have held."""
    global _lock
    _lock = threading.Lock()
    _loops.clear()


os.register_at_fork(after_in_child=_begin_anew)
