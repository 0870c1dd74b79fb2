"""What counts as a label: short text, cleaned; a refusal to name a theme is not one."""

from __future__ import annotations

import re

MOST_CHARACTERS = 120
# What models write where they see no common theme (the paper's prompt calls it TRASH).
NOT_A_LABEL = {
    "",
    "none",
    "trash",
    "nothing",
    "nothing in common",
    "no common theme",
    "no theme",
    "no topic",
    "not clear",
    "unclear",
    "unknown",
    "n/a",
    "null",
    "random words",
    "unrelated",
    "unrelated words",
    "various",
    "miscellaneous",
    "label",
    "topic",
    "word",
    "words",
}


def clean_label(text: str) -> str | None:
    """`text` as a label: one line, no quotes or full stop at its ends; None where it is none."""
    label = re.sub(r"\s+", " ", text).strip().strip("\"'`«».,;: ")[:MOST_CHARACTERS].strip()
    return None if label.casefold() in NOT_A_LABEL else label
