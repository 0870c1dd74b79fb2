"""An LLM on loopback whose answers follow from the request alone, and that keeps what it is asked.

Each answer carries the request's number (a hash of its whole body) as its count of prompt tokens,
so that the file of saved answers says which requests were answered and kept.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from misbehaving_endpoint import KEY, Endpoint, HttpAnswer, completion

from resources.llm_cache import FILE_NAME

WORDS = ("rain", "sea", "boat", "tree", "bird", "stone", "song", "bread", "lamp", "road", "coin")
ONE_TOKEN = ("Yes", "No", "0", "1", "2")


def number_of(body: dict[str, Any]) -> int:
    """The request's number: 28 bits of a hash of its body."""
    text = json.dumps(body, sort_keys=True)
    return int(hashlib.sha256(text.encode()).hexdigest()[:7], 16)


def answer_to(body: dict[str, Any]) -> HttpAnswer:
    """A label, a rating, a choice or a sentence, as was asked for; always the same one."""
    number = number_of(body)
    form = body.get("response_format")
    if form is not None:
        text = json.dumps(_value(form["json_schema"]["schema"], number))
    elif body.get("logprobs"):
        text = ONE_TOKEN[number % len(ONE_TOKEN)]
    else:
        text = f"The {_words(number, ' is near the ')}."
    answer = completion(text)
    answer["usage"] |= {"prompt_tokens": number}
    answer["choices"][0]["logprobs"] = _logprobs(text, number)
    return HttpAnswer(body=answer)


@contextmanager
def counting_llm() -> Iterator[Endpoint]:
    """The endpoint, running; `requests` are the bodies that it was sent so far."""
    endpoint = Endpoint()
    endpoint.answer = lambda body, _: answer_to(body)
    try:
        yield endpoint
    finally:
        endpoint.server.shutdown()
        endpoint.server.server_close()


def environment_of(endpoint: Endpoint) -> dict[str, str]:
    """What makes a study with an `llm.model` of any name ask this endpoint."""
    return {"OPENAI_BASE_URL": endpoint.url, "OPENAI_API_KEY": KEY}


def kept_answers(lake_root: Path) -> set[int]:
    """Numbers of the requests whose answers are in the lake's file of saved answers."""
    path = lake_root / "llm_cache" / FILE_NAME
    if not path.exists():
        return set()
    with closing(sqlite3.connect(path)) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'answers'").fetchone():
            return set()
        return {number for (number,) in database.execute("SELECT prompt_tokens FROM answers")}


def _value(schema: dict[str, Any], number: int) -> Any:
    if "enum" in schema:
        return schema["enum"][number % len(schema["enum"])]
    if schema["type"] == "object":
        return {name: _value(inner, number) for name, inner in schema["properties"].items()}
    if schema["type"] == "integer":
        return schema.get("minimum", 0) + number % 3
    assert schema["type"] == "string", schema
    return _words(number, " and ")


def _words(number: int, between: str) -> str:
    return between.join(WORDS[(number >> shift) % len(WORDS)] for shift in (0, 8))


def _logprobs(text: str, number: int) -> dict[str, Any]:
    """Of the allowed answers, none so unlikely that the reply is no answer (labels/judging.py)."""
    top = [
        {"token": token, "logprob": -0.1 - (number >> shift) % 64 / 64, "bytes": None}
        for shift, token in enumerate(ONE_TOKEN)
    ]
    return {"content": [{"token": text, "logprob": -0.1, "bytes": None, "top_logprobs": top}]}
