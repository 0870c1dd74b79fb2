"""An OpenAI-compatible server on loopback that misbehaves on demand, and requests to ask it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from assets.labels.config import LlmConfig
from assets.shared.chat import ChatRequest
from resources.chat_model import ChatModel

KEY = "sk-test-1234567890abcdef"


def completion(text: str, **message: Any) -> dict[str, Any]:
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": text, **message},
                "logprobs": {
                    "content": [
                        {"token": " ", "logprob": -0.1, "bytes": None, "top_logprobs": []},
                        {
                            "token": "Yes",
                            "logprob": -0.5,
                            "bytes": None,
                            "top_logprobs": [
                                {"token": "Yes", "logprob": -0.5, "bytes": None},
                                {"token": "No", "logprob": -1.0, "bytes": None},
                            ],
                        },
                    ]
                },
            }
        ],
        "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
    }


@dataclass
class HttpAnswer:
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    sleep_seconds: float = 0.0
    # Sent a byte at a time, with this wait after each; headers too where `drips_headers`.
    drip_seconds: float = 0.0
    drips_headers: bool = False


class Endpoint:
    """`answer(request body, how many times this prompt came before)` decides every reply."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answer: Callable[[dict[str, Any], int], HttpAnswer] = lambda body, n: HttpAnswer(
            body=completion(f"echo {prompt_of(body)}")
        )
        self._lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with endpoint._lock:
                    before = sum(prompt_of(b) == prompt_of(body) for b in endpoint.requests)
                    endpoint.requests.append(body)
                answer = endpoint.answer(body, before)
                time.sleep(answer.sleep_seconds)
                body = answer.body
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                try:
                    self.send_response(answer.status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(content)))
                    for name, value in answer.headers.items():
                        self.send_header(name, value)
                    if answer.drips_headers:
                        content = b"X-Long: " + b"x" * 500 + b"\r\n\r\n" + content
                        self.flush_headers()
                    else:
                        self.end_headers()
                    if answer.drip_seconds:
                        for byte in content:
                            self.wfile.write(bytes([byte]))
                            time.sleep(answer.drip_seconds)
                    else:
                        self.wfile.write(content)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client gave up waiting

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def model(self, tmp_path: Path | None = None, **options: Any) -> ChatModel:
        usual = {"timeout_seconds": 10.0, "concurrency": 2, "max_retries": 2, "retry_seconds": 30.0}
        config = LlmConfig(model="m", **usual | options)
        environment = {"OPENAI_BASE_URL": self.url, "OPENAI_API_KEY": KEY}
        return ChatModel(config, cache_folder=tmp_path, environment=environment)


def prompt_of(body: dict[str, Any]) -> str:
    return body["messages"][-1]["content"]


def ask(text: str, **options: Any) -> ChatRequest:
    return ChatRequest("p", "v1", ({"role": "user", "content": text},), **options)
