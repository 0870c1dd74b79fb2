"""A server on loopback with OpenAI's /v1/files and /v1/batches, each batch with a fate of its own.

Batches move on by one state each time they are looked at: validating, in_progress, finalizing, and
their end. Inputs are checked as the provider does (purpose, endpoint, window, unique custom ids).
"""

from __future__ import annotations

import email
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from counting_llm import answer_to

STATES = ("validating", "in_progress", "finalizing")
COUNTS = {"total": 0, "completed": 0, "failed": 0}


class BatchEndpoint:
    """`line_error(body)` gives a request's error line instead of an answer; see the attributes."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        # How many looks a batch takes to end, and how it ends.
        self.looks, self.end = 3, "completed"
        self.line_error: Callable[[dict[str, Any]], tuple[int, dict[str, Any]] | None] = (
            lambda body: None
        )
        # Requests that an ended batch did not get to.
        self.is_left_out: Callable[[dict[str, Any]], bool] = lambda body: False
        # (method, path) -> HTTP status and body instead of what is asked for.
        self.broken: Callable[[str, str], tuple[int, Any] | None] = lambda method, path: None
        # Batches are made, and the client never hears of it.
        self.loses_the_answer_to_create = False
        # Batches are made, and a gateway answers with this status.
        self.status_of_create: int | None = None
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def submitted(self) -> list[str]:
        """The custom ids of all batches, in order."""
        return [line["custom_id"] for b in self.batches.values() for line in self.lines_of(b)]

    def lines_of(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        content = self.files[batch["input_file_id"]].decode()
        return [json.loads(line) for line in content.split("\n") if line]

    def create_file(self, purpose: str, name: str, content: bytes) -> dict[str, Any]:
        assert purpose == "batch", purpose
        return self._file(name, content, purpose)

    def _file(self, name: str, content: bytes, purpose: str) -> dict[str, Any]:
        file_id = f"file-{len(self.files)}"
        self.files[file_id] = content
        return {
            "id": file_id,
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": name,
            "purpose": purpose,
            "status": "processed",
        }

    def create_batch(self, asked: dict[str, Any]) -> dict[str, Any]:
        assert asked["endpoint"] == "/v1/chat/completions", asked
        assert asked["completion_window"] == "24h", asked
        batch = {
            "id": f"batch_{len(self.batches)}",
            "object": "batch",
            "endpoint": asked["endpoint"],
            "input_file_id": asked["input_file_id"],
            "completion_window": "24h",
            "status": "validating",
            "created_at": int(time.time()) + len(self.batches),
            "metadata": asked.get("metadata"),
            "request_counts": COUNTS,
            "errors": None,
            "output_file_id": None,
            "error_file_id": None,
            "looks": 0,
        }
        self.batches[batch["id"]] = batch
        return batch

    def look_at(self, batch: dict[str, Any]) -> dict[str, Any]:
        batch["looks"] += 1
        if batch["looks"] < self.looks:
            batch["status"] = STATES[min(batch["looks"], 2)]
        elif batch["status"] in STATES:
            self._finish(batch)
        return {name: value for name, value in batch.items() if name != "looks"}

    def _finish(self, batch: dict[str, Any]) -> None:
        lines = self.lines_of(batch)
        ids = [line["custom_id"] for line in lines]
        batch["status"] = self.end
        if len(set(ids)) < len(ids) or self.end == "failed":
            batch["status"] = "failed"
            error = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}
            batch["errors"] = {"object": "list", "data": [error]}
            return
        answers, errors = [], []
        for number, line in enumerate(lines):
            shared = {"id": f"batch_req_{number}", "custom_id": line["custom_id"]}
            failed = self.line_error(line["body"])
            if self.is_left_out(line["body"]):
                if self.end != "expired":
                    continue
                error = {"code": "batch_expired", "message": "This request could not be executed."}
                errors.append({**shared, "response": None, "error": error})
                continue
            status, body = failed or (200, answer_to(line["body"]).body)
            response = {"status_code": status, "request_id": f"r{number}", "body": body}
            (errors if failed else answers).append({**shared, "response": response, "error": None})
        counts = {"total": len(lines), "completed": len(answers), "failed": len(errors)}
        batch["request_counts"] = counts
        for name, found in (("output_file_id", answers), ("error_file_id", errors)):
            if found:
                # Out of order, as the provider's are.
                content = "".join(json.dumps(one) + "\n" for one in reversed(found)).encode()
                batch[name] = self._file(f"{name}.jsonl", content, "batch_output")["id"]

    def list_batches(self, query: dict[str, list[str]]) -> dict[str, Any]:
        newest_first = list(reversed(self.batches.values()))
        after = query.get("after", [None])[0]
        ids = [batch["id"] for batch in newest_first]
        start = ids.index(after) + 1 if after else 0
        page = newest_first[start : start + 2]  # small pages, so that there is more than one
        return {
            "object": "list",
            "data": [{k: v for k, v in batch.items() if k != "looks"} for batch in page],
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": start + 2 < len(newest_first),
        }


def _handler(endpoint: BatchEndpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer("GET", b"")

        def do_POST(self) -> None:
            self._answer("POST", self.rfile.read(int(self.headers["Content-Length"])))

        def _answer(self, method: str, sent: bytes) -> None:
            address = urlsplit(self.path)
            path = address.path.removeprefix("/v1")
            with endpoint.lock:
                endpoint.calls.append(f"{method} {path}")
                status, body = endpoint.broken(method, path) or (200, None)
                if body is None:
                    body = self._content(method, path, sent, parse_qs(address.query))
            if method == "POST" and path == "/batches" and endpoint.loses_the_answer_to_create:
                self.close_connection = True
                return
            if method == "POST" and path == "/batches" and endpoint.status_of_create is not None:
                status, body = endpoint.status_of_create, {"error": {"message": "gateway"}}
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _content(self, method: str, path: str, sent: bytes, query: Any) -> Any:
            parts = path.strip("/").split("/")
            match (method, *parts):
                case ("POST", "files"):
                    kind = self.headers["Content-Type"].encode()
                    form = email.message_from_bytes(b"Content-Type: " + kind + b"\r\n\r\n" + sent)
                    fields = {
                        part.get_param("name", header="content-disposition"): part
                        for part in form.get_payload()
                    }
                    content = fields["file"].get_payload(decode=True)
                    purpose = fields["purpose"].get_payload(decode=True).decode().strip()
                    return endpoint.create_file(purpose, fields["file"].get_filename(), content)
                case ("GET", "files", file_id, "content"):
                    return endpoint.files[file_id]
                case ("POST", "batches"):
                    return endpoint.create_batch(json.loads(sent))
                case ("GET", "batches"):
                    return endpoint.list_batches(query)
                case ("GET", "batches", batch_id):
                    return endpoint.look_at(endpoint.batches[batch_id])
                case ("POST", "chat", "completions"):
                    return answer_to(json.loads(sent)).body
            raise AssertionError((method, path))

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@contextmanager
def batch_endpoint() -> Iterator[BatchEndpoint]:
    endpoint = BatchEndpoint()
    try:
        yield endpoint
    finally:
        endpoint.server.shutdown()
        endpoint.server.server_close()
