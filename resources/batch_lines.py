"""The lines of a provider batch: requests in its input file, answers and errors in its outputs.

Pure; the format is OpenAI's (platform guide "Batch API"): `custom_id` is the request's hash, an
output line holds a response with status and body, or an error where the request never ran.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resources.refused_parameters import blamed

ENDPOINT = "/v1/chat/completions"
# The provider's limits, with room to spare for the bytes.
MOST_REQUESTS = 50_000
MOST_BYTES = 190_000_000
UNREADABLE = "its line of the batch's output could not be read"


@dataclass(frozen=True)
class OutputLine:
    """What became of one request: `body` of a response, or the message and codes of an error.

    `status` is 0 where the request never ran, or its line could not be read.
    """

    request_hash: str
    status: int
    body: Mapping[str, Any] | None
    message: str = ""
    param: str | None = None
    codes: frozenset[str] = frozenset()


def input_line(request_hash: str, parameters: Mapping[str, Any]) -> str:
    """One request as a line of the input file."""
    line = {
        "custom_id": request_hash,
        "method": "POST",
        "url": ENDPOINT,
        "body": dict(parameters),
    }
    return json.dumps(line, ensure_ascii=False)


def chunks(lines: Mapping[str, str], most: int | None = None) -> Iterator[list[str]]:
    """Request hashes by input file, as many in one as the provider takes, at most `most`."""
    limit = MOST_REQUESTS if most is None else min(most, MOST_REQUESTS)
    chunk: list[str] = []
    n_bytes = 0
    for request_hash, line in lines.items():
        size = len(line.encode()) + 1
        if chunk and (len(chunk) == limit or n_bytes + size > MOST_BYTES):
            yield chunk
            chunk, n_bytes = [], 0
        chunk.append(request_hash)
        n_bytes += size
    if chunk:
        yield chunk


def output_lines(files: Sequence[str]) -> Iterator[OutputLine]:
    """The lines of output and error files, none of which ends the reading: what names no request
    is left out, and what says of one nothing that can be read is its error.
    """
    for text in files:
        # Not splitlines: texts may hold other characters that it takes for line ends.
        for line in text.split("\n"):
            try:
                content = json.loads(line)
                request_hash = str(content["custom_id"])
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
            try:
                found = _read(request_hash, content)
            except Exception as error:  # a provider may write anything
                words = f"{UNREADABLE}: {type(error).__name__}: {error}"
                found = OutputLine(request_hash, 0, None, words)
            yield found


def _read(request_hash: str, content: Mapping[str, Any]) -> OutputLine:
    response = content.get("response") or {}
    body, status = response.get("body"), int(response.get("status_code") or 0)
    if status == 200 and isinstance(body, dict):
        return OutputLine(request_hash, status, body)
    in_body = body.get("error") if isinstance(body, Mapping) else None
    # An error may be a text.
    said = content.get("error") or in_body or body
    codes = [said.get(name) for name in ("code", "type")] if isinstance(said, Mapping) else []
    param, message = blamed(said)
    return OutputLine(
        request_hash,
        status,
        None,
        message or "no reason given",
        param,
        frozenset(str(code) for code in codes if code),
    )
