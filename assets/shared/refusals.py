"""Refusals in prose: what a model writes in place of an answer, known by how it begins.

An endpoint says in a field of its own that it refused, and the call has failed; but many models
write "I'm sorry, but I can't help with that" or "As an AI language model, I …" as if it were what
was asked for. Only what begins so, and goes on to say that it cannot help or write, is taken for a
refusal: an apology in a sentence, or a label about apologies, is none. English only.
"""

from __future__ import annotations

import re

_SORRY = (
    r"(?:(?:i'm|i am) (?:\w+ )?sorry|sorry|i apologi[sz]e|my apologies|unfortunately)"
    r"(?: for \w+ \w+)?\W+(?:but )?"
)
_CANNOT = (
    r"(?:i|we)(?:'m| am|'re| are)? (?:can't|cannot|can not|could not|couldn't|won't|will not|"
    r"not able to|unable to|not allowed to|must decline to)"
)
_DO = (
    r"(?:help|assist|comply|fulfill?|provide|generate|create|write|produce|complete|discuss|do|"
    r"answer)"
)
# What it refuses to do is the request itself, or nothing more is said.
_REQUEST = (
    r"(?: you)?(?: with)?(?: (?:any|an?|this|that|such|your|the|it))?"
    r"(?: (?:further|kind of|type of|sort of))?"
    r"(?: (?:help|assistance|requests?|content|information|sentences?|texts?|task|prompt|"
    r"questions?|response|answer|labels?|topic|kind|type|sort)\b|\W*$|[.,;!])"
)
_MODEL = r"(?:ai(?: (?:assistant|model|language model))?|(?:large )?language model|llm)"

_BEGINNINGS = re.compile(
    "|".join(
        (
            rf"(?:{_SORRY})?{_CANNOT} {_DO}{_REQUEST}",
            rf"as an? {_MODEL}(?:\W*$|[,.…]|,? i\b)",
        )
    )
)


def is_refusal(text: str) -> bool:
    """Whether `text` begins as a model's refusal to answer does."""
    flat = " ".join(text.casefold().replace("’", "'").split())
    return _BEGINNINGS.match(flat.lstrip("\"'`«»“”*_#-[( ")) is not None
