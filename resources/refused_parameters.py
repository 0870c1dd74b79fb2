"""Which optional parameter of a call an error answer refuses, in the words of many servers.

Some name it in a field: `param` (OpenAI, Azure), `loc` of a forbidden input (FastAPI, vLLM). Others
only in words: then the name must stand beside "unsupported", "unknown", "not permitted" and their
like, and not within a quoted text of several words, which is a prompt. A name alone tells nothing:
prompts have seeds and temperatures too.
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


def refused_parameter(message: str, param: str | None, sent: Collection[str]) -> str | None:
    """The one of DROPPABLE, of those `sent`, that is refused; None where none is.

    `param` is the field that the error blames, None where it names none.
    """
    if param:
        parts = re.split(r"[.\[\]/]+", param.removeprefix("body."))
        name = _OTHER_NAMES.get(parts[0], parts[0])
        return name if name in DROPPABLE and name in sent else None
    words = _QUOTED_TEXT.sub(" … ", message[:LONGEST_MESSAGE].replace("(s)", "s"))
    for named in _NAMES:
        name = _OTHER_NAMES.get(named, named)
        if name in sent and _is_refused(named, words):
            return name
    return None


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
    if error.get("message"):
        return _text(error.get("param")), str(error["message"])
    detail = error.get("detail")
    if isinstance(detail, (list, tuple)):
        faults = [one for one in detail if isinstance(one, Mapping)]
        message = "; ".join(f"{_place(one)}: {one.get('msg')}" for one in faults)
        forbidden = [
            one for one in faults if _FORBIDDEN.search(f"{one.get('type')} {one.get('msg')}")
        ]
        return (_place(forbidden[0]) if forbidden else None), message or None
    if isinstance(detail, Mapping):
        return blamed(detail)
    return _text(error.get("param")), _text(detail)


def _place(fault: Mapping[str, Any]) -> str:
    """loc ["body", "seed"] → "seed"."""
    place = fault.get("loc")
    parts = [str(part) for part in place] if isinstance(place, (list, tuple)) else [str(place)]
    return ".".join(parts[1:] if parts[0] == "body" and len(parts) > 1 else parts)


def _text(value: Any) -> str | None:
    return str(value) if value else None
