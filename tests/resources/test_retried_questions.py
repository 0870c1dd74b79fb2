"""Questions about files and batches: every fault of a reply is a failed call with its reason."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from misbehaving_endpoint import KEY

from resources.call_failures import CallFailed
from resources.chat_endpoint import ChatEndpoint

BATCH = b'{"id": "batch_1", "object": "batch", "status": "completed"}'
PAGE = f"<html><body>Sign in, {KEY}</body></html>".encode()
LINES = b'{"custom_id": "a"}\n{"custom_id": "b"}\n'
QUESTIONS: dict[str, Callable[[Any], Any]] = {
    "look": lambda client: client.batches.retrieve("batch_1").status,
    "list": lambda client: [batch.id for batch in client.batches.list(limit=2)],
    "submit": lambda client: (
        client.batches.create(
            input_file_id="f", endpoint="/v1/chat/completions", completion_window="24h"
        ).id
    ),
    "upload": lambda client: client.files.create(file=("a", b"a"), purpose="batch").id,
    "read": lambda client: client.files.content("file-1").text,
}


class Replies:
    """Sends `replies` (media type, content) one after the other, the last one for ever."""

    def __init__(self) -> None:
        self.replies: list[tuple[str, bytes]] = []
        self.n_asked = 0
        answering = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kind, content = answering.replies[
                    min(answering.n_asked, len(answering.replies) - 1)
                ]
                answering.n_asked += 1
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def endpoint(self) -> ChatEndpoint:
        return ChatEndpoint(
            model="m",
            base_url=f"http://127.0.0.1:{self.server.server_port}/v1",
            api_key=KEY,
            timeout_seconds=10.0,
            max_retries=1,
        )


@pytest.fixture
def server() -> Iterator[Replies]:
    server = Replies()
    yield server
    server.server.shutdown()
    server.server.server_close()


def test_a_reply_cut_off_on_its_way_is_asked_for_again(server: Replies) -> None:
    server.replies = [("application/json", BATCH[:20]), ("application/json", BATCH)]
    assert server.endpoint().retried(QUESTIONS["look"]) == "completed"
    assert server.n_asked == 2


@pytest.mark.parametrize("question", ["look", "list", "submit", "upload"])
def test_a_reply_that_is_always_cut_off_is_a_failure_that_may_pass(
    server: Replies, question: str
) -> None:
    server.replies = [("application/json", BATCH[:20])]
    with pytest.raises(CallFailed, match="reply could not be read") as raised:
        server.endpoint().retried(QUESTIONS[question])
    assert raised.value.may_pass and raised.value.status is None and server.n_asked == 2


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "text/plain"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_page_in_the_place_of_a_reply_is_a_failure_that_says_so(
    server: Replies, question: str, kind: str
) -> None:
    server.replies = [(kind, PAGE + b"x" * 5000)]
    with pytest.raises(CallFailed, match=r"no API reply.*text/.*<html>") as raised:
        server.endpoint().retried(QUESTIONS[question])
    assert KEY not in raised.value.reason and raised.value.may_pass
    assert len(raised.value.reason) <= 300
    assert server.n_asked == 2


@pytest.mark.parametrize("kind", ["application/json", "text/plain", ""])
def test_replies_and_files_are_read_whatever_type_they_are_said_to_be(
    server: Replies, kind: str
) -> None:
    """Control."""
    server.replies = [(kind, BATCH)]
    assert server.endpoint().retried(QUESTIONS["look"]) == "completed"
    server.replies = [(kind or "application/octet-stream", LINES)]
    assert server.endpoint().retried(QUESTIONS["read"]) == LINES.decode()
    assert server.n_asked == 2


def test_whatever_else_is_raised_is_a_failure_without_secrets(server: Replies) -> None:
    def ask(client: Any) -> None:
        raise AttributeError(f"no id in {KEY}")

    with pytest.raises(CallFailed, match="AttributeError: no id in") as raised:
        server.endpoint().retried(ask)
    assert KEY not in raised.value.reason and not raised.value.may_pass
