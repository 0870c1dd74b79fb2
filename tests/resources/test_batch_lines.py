"""A batch's files: requests cut into chunks, output lines read whatever stands in them."""

from __future__ import annotations

import json

import pytest
from misbehaving_endpoint import completion

from resources.batch_lines import chunks, input_line, output_lines


def test_chunks_hold_every_request_once_and_stay_within_the_limits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("resources.batch_lines.MOST_REQUESTS", 4)
    monkeypatch.setattr("resources.batch_lines.MOST_BYTES", 100)
    lines = {f"h{i}": "é" * (5 if i < 20 else 5 + 7 * (i % 6)) for i in range(40)}
    found = list(chunks(lines))
    assert [h for chunk in found for h in chunk] == list(lines)
    assert max(map(len, found)) == 4
    sizes = [sum(len(lines[h].encode()) + 1 for h in chunk) for chunk in found]
    assert max(sizes) <= 100
    # No chunk could have taken the next one's first line too.
    following = [len(lines[chunk[0]].encode()) + 1 for chunk in found[1:]]
    for chunk, size, more in zip(found, sizes, following, strict=False):
        assert len(chunk) == 4 or size + more > 100


def test_lines_are_read_whatever_stands_in_them() -> None:
    body = completion("line\u2028separator")
    good = {"custom_id": "a", "response": {"status_code": 200, "body": body}, "error": None}
    text = "\n".join(
        [json.dumps(good, ensure_ascii=False), "no json", "[1]", '{"custom_id": "b"}', "7"]
    )
    found = {line.request_hash: line for line in output_lines([text])}
    assert set(found) == {"a", "b"}
    assert found["a"].body == body and found["b"].body is None
    assert json.loads(input_line("h", {"model": "m"}))["url"] == "/v1/chat/completions"
