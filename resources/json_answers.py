"""A model's text read as the JSON that was asked for: one repair, then a clear refusal.

The repair takes the first balanced {...} out of the text that fits the schema (models wrap it in
prose or ``` fences, and reasoning models put their thoughts before it, which count for nothing) and
drops trailing commas. It never closes what a token limit cut off: half an answer is none.
The check covers the schemas this project sends (object, array, string, number, integer, boolean,
enum, required, minimum, maximum, minItems, maxItems); servers that enforce schemas do the rest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

SHOWN_CHARACTERS = 80

# Prose has braces too: {1, 2}.
_BEGINS = re.compile(r'\{(?=\s*["}])')

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


class NotTheJsonAskedFor(ValueError):
    """The text holds no JSON of the schema asked for; `problem` says what is wrong."""

    def __init__(self, problem: str, text: str) -> None:
        shown = " ".join(text.split())[:SHOWN_CHARACTERS]
        super().__init__(f"reply is not the JSON asked for ({problem}): {shown!r}")
        self.problem = problem


def json_answer(text: str, schema: Mapping[str, Any]) -> str:
    """The answer as JSON text that fits `schema`: `text` itself where it does, else repaired.

    Raises NotTheJsonAskedFor with what is wrong and the first 80 characters of the text.
    """
    problem = "no {...} in it"
    for candidate in dict.fromkeys(_candidates(text)):
        try:
            value = json.loads(candidate)
        except json.JSONDecodeError as error:
            problem = f"{error.msg} at character {error.pos}"
            continue
        except ValueError:  # Python reads whole numbers of 4300 digits at most
            problem = "a number has too many digits"
            continue
        except RecursionError:
            problem = "too many brackets in each other"
            continue
        wrong = _mismatch(value, schema, "the answer")
        if wrong is None:
            return candidate
        problem = wrong
    raise NotTheJsonAskedFor(problem, text)


def _candidates(text: str) -> Iterator[str]:
    yield text.strip()
    for block in _blocks(_without_thoughts(text)):
        yield block
        yield re.sub(r",\s*([}\]])", r"\1", block)


def _without_thoughts(text: str) -> str:
    """What follows the thoughts; some models' begin in the prompt, so that only their end shows."""
    text = re.sub(r"<think>.*?(</think>|\Z)", " ", text, flags=re.DOTALL)
    return text.rpartition("</think>")[2]


def _blocks(text: str) -> Iterator[str]:
    """The balanced {...} that begin as an object does, none within another."""
    position = 0
    while (begin := _BEGINS.search(text, position)) is not None:
        end = _end_of_block(text, begin.start())
        if end is None:
            return
        yield text[begin.start() : end]
        position = end


def _end_of_block(text: str, start: int) -> int | None:
    """Where the block at `start` closes, braces inside strings not counted; None if nowhere."""
    depth, in_string, is_escaped = 0, False, False
    for index in range(start, len(text)):
        character = text[index]
        if is_escaped:
            is_escaped = False
        elif character == "\\":
            is_escaped = in_string
        elif character == '"':
            in_string = not in_string
        elif not in_string and character in "{}":
            depth += 1 if character == "{" else -1
            if depth == 0:
                return index + 1
    return None


def _mismatch(value: Any, schema: Mapping[str, Any], where: str) -> str | None:
    """What of `value` does not fit `schema`, or None."""
    kind = schema.get("type")
    if kind is not None and not _is_of(value, kind):
        return f"{where} is {type(value).__name__}, expected {kind}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} is {value!r}, expected one of {list(schema['enum'])}"
    if isinstance(value, dict):
        for name in schema.get("required", ()):
            if name not in value:
                return f"{where} has no {name!r}"
        for name, part in schema.get("properties", {}).items():
            if name in value and (wrong := _mismatch(value[name], part, repr(name))):
                return wrong
    elif isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            return f"{where} has {len(value)} items"
        for item in value:
            if wrong := _mismatch(item, schema.get("items", {}), f"an item of {where}"):
                return wrong
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        if not low <= value <= high:
            return f"{where} is {value}, expected {low} to {high}"
    return None


def _is_of(value: Any, kind: str | list[str]) -> bool:
    kinds = [kind] if isinstance(kind, str) else kind
    if isinstance(value, bool):
        return "boolean" in kinds
    return any(isinstance(value, _TYPES.get(name, ())) for name in kinds)
