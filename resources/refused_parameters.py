"""Which optional parameter of a call an error answer refuses, in the words of many servers.

Some name it in a field: `param` (OpenAI, Azure), `loc` of a forbidden input (FastAPI, vLLM). A
value is blamed alike, so that the code or the words must tell that the parameter itself is refused.
Others name it only in words: the name must stand beside "unsupported", "unknown", "not permitted"
and their like, and not within a quoted text of several words, which is a prompt. A name alone tells
nothing: prompts have seeds and temperatures too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

# Calls are made without these where they are refused; max_tokens is sent by its newer name.
DROPPABLE = ("max_tokens", "temperature", "seed", "top_logprobs", "logprobs", "response_format")
# 403: OpenAI's reasoning models for logprobs; 404: OpenRouter; 422: FastAPI.
STATUSES = (400, 403, 404, 422)
LONGEST_MESSAGE = 2000
# Of errors whose `param` is refused itself; the last is that of a parameter with one value only.
REFUSING_CODES = {"unsupported_parameter", "unknown_parameter", "extra_forbidden"}
ONE_VALUE_CODE = "unsupported_value"
# Requests ask for one type of answers: blaming it says nothing of one schema.
ANSWER_TYPE = "response_format.type"
_OTHER_NAMES = {"json_schema": "response_format", "response format": "response_format"}
_NAMES = (*DROPPABLE, *_OTHER_NAMES)
_FORBIDDEN = re.compile(r"forbidden|not permitted|unexpected|unsupported|not supported", re.I)

_BEFORE = (
    r"unsupported|unknown|unrecogni[sz]ed|unexpected"
    r"|not (?:supported|permitted|allowed|available|recogni[sz]ed)"
    r"|(?:does not|doesn't|do not|don't|cannot|can't|that|which) (?:support|handle|accept|allow)"
)
_AFTER = (
    r"unsupported|unknown|unrecogni[sz]ed|unexpected|unavailable"
    r"|not (?:supported|permitted|allowed|available|recogni[sz]ed)"
    r"|(?:does not|doesn't|do not|don't) support"
)
# Words that may stand between the two.
_BETWEEN = (
    r"(?:[\s:'\"`,.()\[\]{}=]|(?:request|requests|requested|body|keyword|parameters?|arguments?"
    r"|fields?|inputs?|names?|options?|propert(?:y|ies)|values?|types?|format|supplied|provided"
    r"|passed|extra|to|use|the|this|is|are|was|were|currently)\b)*"
)
_QUOTED_TEXT = re.compile(r"(?<!\w)(['\"`])(?:(?!\1).)*\s(?:(?!\1).)*\1(?!\w)", re.S)


def refused_parameter(
    message: str, param: str | None, sent: Collection[str], codes: Collection[str] = ()
) -> str | None:
    """The one of DROPPABLE, of those `sent`, that is refused; None where none is.

    `param` is the field that the error blames, None where it names none; `codes` are the error's
    code and type.
    """
    words = _QUOTED_TEXT.sub(" … ", message[:LONGEST_MESSAGE].replace("(s)", "s"))
    if param:
        field = param.removeprefix("body.")
        first = re.split(r"[.\[\]/]+", field)[0]
        name = _OTHER_NAMES.get(first, first)
        is_one = name in DROPPABLE and name in sent
        return name if is_one and _is_blamed_itself(name, field, words, codes) else None
    for named in _NAMES:
        name = _OTHER_NAMES.get(named, named)
        if name in sent and _is_refused(named, words):
            return name
    return None


def _is_blamed_itself(name: str, field: str, words: str, codes: Collection[str]) -> bool:
    """Whether a blamed `field` of the parameter `name` is refused, rather than its value."""
    if ONE_VALUE_CODE in codes:
        # Another number of tokens may do; without the limit, answers may have no end.
        return name != "max_tokens"
    if field == ANSWER_TYPE or not REFUSING_CODES.isdisjoint(codes):
        return True
    names = [named for named in _NAMES if _OTHER_NAMES.get(named, named) == name]
    return any(_is_refused(named, words) for named in (*names, re.escape(field)))


def _is_refused(name: str, words: str) -> bool:
    found = rf"(?<!\w){name}(?!\w)"
    patterns = (rf"\b(?:{_BEFORE})\b{_BETWEEN}{found}", rf"{found}{_BETWEEN}\b(?:{_AFTER})\b")
    return any(re.search(pattern, words, re.I) for pattern in patterns)


def blamed(error: Any) -> tuple[str | None, str | None]:
    """(parameter, message) of the error in an answer's body, as far as it has them.

    `error` is the body, or what stands in it under "error".
    """
    if isinstance(error, str):
        return None, error
    if not isinstance(error, Mapping):
        return None, None
    message, detail = error.get("message"), error.get("detail")
    if isinstance(message, Mapping):  # Mistral puts FastAPI's answer there
        return blamed(message)
    if message:
        return _text(error.get("param")), str(message)
    if isinstance(detail, (list, tuple)):
        faults = [one for one in detail if isinstance(one, Mapping)]
        forbidden = [_place(one) for one in faults if _is_forbidden(one)]
        words = "; ".join(_words(one) for one in faults)
        return (forbidden[0] if forbidden else None), words or None
    if isinstance(detail, Mapping):
        return blamed(detail)
    return _text(error.get("param")), _text(detail)


def _is_forbidden(fault: Mapping[str, Any]) -> bool:
    return _FORBIDDEN.search(f"{fault.get('type')} {fault.get('msg')}") is not None


def _words(fault: Mapping[str, Any]) -> str:
    """What a fault says, after its place; types tell what is forbidden where words do not."""
    place, said = _place(fault), str(fault.get("msg"))
    if place and _is_forbidden(fault) and not _FORBIDDEN.search(said):
        return f"{place} is not permitted: {said}"
    return f"{place}: {said}" if place else said


def _place(fault: Mapping[str, Any]) -> str | None:
    """loc ["body", "seed"] → "seed"; None where there is none."""
    place = fault.get("loc")
    parts = [str(part) for part in place] if isinstance(place, (list, tuple)) else [_text(place)]
    if parts[:1] == ["body"] and len(parts) > 1:
        parts = parts[1:]
    return ".".join(part for part in parts if part) or None


def _text(value: Any) -> str | None:
    return str(value) if value else None
