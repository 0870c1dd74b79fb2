"""What makes a raw row unusable, one row at a time.

Duplicates need the rows before them and are found in read.py.
"""

from __future__ import annotations

from typing import Any

from assets.corpus.formats import RawRow


def row_problem(row: RawRow, max_characters: int) -> str | None:
    """Why `row` can be no document, or None; the text is judged without surrounding whitespace."""
    if row.problem is not None:
        return row.problem
    if row.text is None:
        return "the text is null"
    if not isinstance(row.text, str):
        return f"the text is of type {type(row.text).__name__}, expected a string"
    text = row.text.strip()
    if not text:
        return "the text is empty or blank"
    if len(text) > max_characters:
        return (
            f"the text has {len(text):,} characters, more than max_characters = {max_characters:,}"
        )
    for name, value in (
        ("text", text),
        ("concept", row.concept),
        ("parent concept", row.parent_concept),
    ):
        problem = _value_problem(name, value)
        if problem is not None:
            return problem
    return None


def concept_name(value: Any) -> str | None:
    """A concept as a stripped string, or None where there is none or no usable one (NaN too)."""
    if value is None or value != value or _value_problem("concept", value) is not None:
        return None
    return str(value).strip() or None


def _value_problem(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str | int | float):
        return f"the {name} is of type {type(value).__name__}, expected a string"
    content = str(value)
    if "\0" in content:
        return f"NUL character at character {content.index(chr(0)) + 1} of the {name}"
    try:
        content.encode()
    except UnicodeEncodeError as error:
        # JSON escapes can spell half of a surrogate pair, which no UTF-8 can hold.
        return f"half of a surrogate pair at character {error.start + 1} of the {name}"
    return None
