"""A batch's files: requests cut into chunks, output lines read whatever stands in them."""

from __future__ import annotations

import json
from typing import Any

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


@pytest.mark.parametrize(
    "said",
    [
        {"response": {"status_code": 400, "body": {"error": "Unsupported parameter: seed"}}},
        {"response": {"status_code": 400, "body": "Unsupported parameter: seed"}},
        {"response": {"status_code": 400}, "error": "Unsupported parameter: seed"},
    ],
)
def test_an_error_that_is_a_text_is_the_reason(said: dict[str, Any]) -> None:
    [line] = output_lines([json.dumps({"custom_id": "a", **said})])
    assert (line.request_hash, line.status, line.body) == ("a", 400, None)
    assert (line.message, line.param, line.codes) == (
        "Unsupported parameter: seed",
        None,
        frozenset(),
    )


@pytest.mark.parametrize(
    "response",
    ['"oops"', '{"status_code": "many", "body": {}}', '{"status_code": 1e999, "body": {}}', "[1]"],
)
def test_a_line_of_a_request_that_cannot_be_read_says_so(response: str) -> None:
    good = json.dumps({"custom_id": "b", "response": {"status_code": 200, "body": {}}})
    text = f'{{"custom_id": "a", "response": {response}}}\n{good}'
    bad, read = output_lines([text])
    assert (bad.request_hash, bad.status, bad.body) == ("a", 0, None)
    assert bad.message.startswith("its line of the batch's output could not be read: ")
    assert (read.request_hash, read.status) == ("b", 200)


def test_no_line_ends_the_reading() -> None:
    body = {"detail": [{"loc": [], "type": "extra_forbidden", "msg": "not permitted"}]}
    lines = [
        "[" * 100_000,
        '{"custom_id": "deep", "response": ' + "[" * 100_000,
        '{"custom_id": "long", "response": {"status_code": ' + "1" * 5000 + "}}",
        json.dumps({"custom_id": "no place", "response": {"status_code": 422, "body": body}}),
        json.dumps({"custom_id": "a", "response": {"status_code": 200, "body": {}}}),
    ]
    assert [line.request_hash for line in output_lines(["\n".join(lines)])] == ["no place", "a"]
