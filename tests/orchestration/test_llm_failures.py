"""An LLM that is down, refuses the key or talks nonsense: rows say so, and the run goes on."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from mini_study import write_study
from platform_of_test import Platform

pytestmark = pytest.mark.slow
KEY = "sk-secret-of-the-test"


@contextmanager
def endpoint(status: int, body: dict) -> Iterator[str]:
    """A server on loopback that gives every call the same answer."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


GARBAGE = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "%%% no json, no rating %%%"},
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6},
}
REFUSED = {"error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}}


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (None, {}, "nothing answers|endpoint|refused|down"),
        (401, REFUSED, "OPENAI_API_KEY"),
        (200, GARBAGE, "JSON"),
    ],
    ids=["down", "wrong key", "garbage"],
)
def test_labels_become_rows_with_a_reason_and_the_run_goes_on(
    platform: Platform,
    monkeypatch: pytest.MonkeyPatch,
    status: int | None,
    body: dict,
    why: str,
) -> None:
    write_study(
        platform.root / "studies",
        fits=[{"method": "snmf", "rank": 4, "max_iter": 5}],
        corpus={"path": "bundled:concepts", "max_documents": 40},
        llm={"model": "some-model", "max_retries": 0, "timeout_seconds": 20},
    )
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with endpoint(status or 200, body) as address:
        live = address
    if status is None:
        monkeypatch.setenv("OPENAI_BASE_URL", live)  # the server is closed by now
        assert platform.materialize().success
    else:
        with endpoint(status, body) as address:
            monkeypatch.setenv("OPENAI_BASE_URL", address)
            assert platform.materialize().success

    lake = platform.lake
    asked = lake.query(
        "SELECT status, reason FROM labels WHERE kind = 'input' AND reason NOT LIKE 'beyond%'"
    )
    assert set(asked["status"]) == {"failed"}
    assert asked["reason"].str.contains(why).all(), asked["reason"].to_list()
    features = lake.query("SELECT * FROM features")
    assert len(features) == 4
    assert features.filter(status="failed").height == 2
    assert features["steering_score"].null_count() == 4  # NULL, never 0
    assert features["token_summary"].null_count() == 0
    assert lake.query("SELECT count(*) FROM calibrations WHERE status = 'ok'").item() > 0
    for table in sorted(lake.table_names()):
        text = lake.query(f'SELECT * FROM "{table}"').write_json()
        assert KEY not in text, table
    for run in platform.instance.get_runs():
        for record in platform.instance.get_records_for_run(run.run_id).records:
            assert KEY not in str(record.event_log_entry), run.job_name
