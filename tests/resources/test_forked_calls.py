"""A process that forks after its first call: parent and child both go on calling."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from misbehaving_endpoint import KEY, Endpoint
from pydantic import SecretStr

from resources import call_deadline
from resources.call_deadline import within
from resources.endpoint_clients import EndpointClients

CALLS = """
import gc, os, signal, sys, warnings
from misbehaving_endpoint import ask
from assets.labels.config import LlmConfig
from resources.chat_model import ChatModel
model = ChatModel(LlmConfig(model="m", max_retries=0, timeout_seconds=20),
    environment={"OPENAI_BASE_URL": sys.argv[1], "OPENAI_API_KEY": sys.argv[2]})

def call(text):
    reply = model.complete([ask(text)], purpose="test")[0]
    assert reply.text == f"echo {text}", reply
    gc.collect()

call("before")
child = os.fork()
if not child:
    signal.alarm(60)
    call("in the child")
    call("again")
    os._exit(0)
_, status = os.waitpid(child, 0)
call("after")
sys.exit(status != 0)
"""


def test_calls_go_on_in_a_child_and_in_its_parent(endpoint: Endpoint) -> None:
    # Connections are kept open after a call.
    endpoint.server.RequestHandlerClass.protocol_version = "HTTP/1.1"
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), str(root / "tests")])
    run = subprocess.run(
        [sys.executable, "-c", CALLS, endpoint.url, KEY],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr
    said = [body["messages"][0]["content"] for body in endpoint.requests]
    assert said == ["before", "in the child", "again", "after"]


def clients() -> EndpointClients:
    return EndpointClients(
        base_url="http://127.0.0.1:1/v1", api_key=SecretStr(KEY), timeout_seconds=5.0
    )


def ends_well_in_a_child(work: Callable[[], bool]) -> bool:
    child = os.fork()
    if not child:
        is_well = False
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)
            is_well = work()
        finally:
            os._exit(0 if is_well else 1)
    return os.waitpid(child, 0)[1] == 0


def test_a_child_opens_clients_of_its_own() -> None:
    kept = clients()
    of_parent = (kept.for_calls(), kept.for_files())

    def are_others() -> bool:
        return kept.for_calls() is not of_parent[0] and kept.for_files() is not of_parent[1]

    assert ends_well_in_a_child(are_others)
    assert (kept.for_calls(), kept.for_files()) == of_parent


@pytest.mark.parametrize("held", ["loop", "clients"])
def test_a_lock_that_another_thread_held_at_the_fork_is_free_in_the_child(held: str) -> None:
    async def value() -> int:
        await asyncio.sleep(0)
        return 3

    kept = clients()
    lock = call_deadline._lock if held == "loop" else kept._lock
    is_held, is_over = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            is_held.set()
            is_over.wait(60)

    holding = threading.Thread(target=hold)
    holding.start()
    try:
        assert is_held.wait(60)
        assert ends_well_in_a_child(
            lambda: within(5, value()) == 3 and kept.for_files() is not None
        )
    finally:
        is_over.set()
        holding.join()
