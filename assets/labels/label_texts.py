"""What counts as a label: short text, cleaned. Saying that there is no theme is none.

The prompts ask for "none" (the paper's for TRASH), and models say it in more words: "Trash: no
connection", "No clear pattern", "None of the above". Such an answer is known by its form as a
whole, never by a word in it: "none-type errors" and "trash cans" are labels. A refusal to answer
is another thing (shared/refusals.py).
"""

from __future__ import annotations

import re

MOST_CHARACTERS = 120
# What models write where they see no common theme.
NOT_A_LABEL = {
    "",
    "none",
    "trash",
    "nothing",
    "not clear",
    "unclear",
    "unknown",
    "n/a",
    "null",
    "unrelated",
    "various",
    "miscellaneous",
    "label",
    "topic",
    "word",
    "words",
}

_LEAD = re.compile(r"(?:-? ?(?:results?|connection|label|answer|theme|topic|concept)\s*[:=]\s*)+")
_THEME = (
    r"(?:(?:common|shared|clear|obvious|apparent|evident|discernible|consistent|coherent|specific|"
    r"single|unifying|meaningful|particular|identifiable|distinct|semantic|thematic|logical),? "
    r"(?:or |and )?){0,3}"
    r"(?:patterns?|themes?|topics?|connections?|concepts?|commonalit(?:y|ies)|relation(?:ship)?s?|"
    r"meanings?|links?|labels?|coherence|similarit(?:y|ies))"
)
_SHOWN = r"(?:the |these |those |all |marked |given )*(?:words?|tokens?|texts?|contexts?|examples?)"
_MIXED = r"(?:random|unrelated|unconnected|miscellaneous|various|mixed|assorted|disparate)"
_ABSENT = rf"(?:no {_THEME}|nothing (?:in common|specific|clear|coherent|meaningful)|{_MIXED}\b)"
# How an absence may go on: where, that it was not seen, another one, or an explanation.
_MORE = (
    rf"(?: (?:in|among|across|between|of) {_SHOWN}"
    r"| (?:is |was |can be )?(?:found|detected|identified|visible|present|evident|apparent)"
    rf"| (?:or|and) {_THEME}"
    r"|\s*[,.;:(–—].*| - .*)*"
)
_NO_THEME = re.compile(
    "|".join(
        (
            rf"(?:there (?:is|are|seems to be|appears to be) )?no {_THEME}{_MORE}",
            rf"nothing (?:in common|specific|clear|coherent|meaningful){_MORE}",
            # The code word, and why.
            rf"(?:trash|none|nothing|unclear|n/a|null)\s*(?:[:;,.(–—]| -)\s*{_ABSENT}.*",
            r"none of the above(?:\s*[,.;:(–—].*)?",
            rf"none of (?:these|those|them|{_SHOWN})(?:\W.*)?",
            rf"(?:a )?(?:mix(?:ture)? of )?{_MIXED}(?:(?:,| and|, and)? {_MIXED})* "
            r"(?:words?|tokens?|terms?|topics?|themes?|concepts?|things?|texts?)",
            rf"{_SHOWN} (?:that )?(?:with|have|having|has|are|share|seem) (?:all )?{_ABSENT}.*",
            r"(?:i'm sorry,? (?:but )?)?(?:i )?"
            r"(?:can't|cannot|could not|couldn't|(?:am )?(?:un|not )able to) "
            r"(?:(?:be )?(?:determined?|identify|identified)|find|see|name) ?"
            rf"(?:(?:an?|any|the|one) {_THEME}{_MORE})?",
        )
    )
)


def clean_label(text: str) -> str | None:
    """`text` as a label: one line, no quotes or full stop at its ends; None where it is none."""
    flat = re.sub(r"\s+", " ", text).strip()
    label = flat.strip("\"'`«»,.;: ")[:MOST_CHARACTERS].strip()
    return None if _says_no_theme(flat) else label


def _says_no_theme(text: str) -> bool:
    plain = _bare(text.casefold().replace("’", "'"))
    plain = _bare(_LEAD.sub("", plain, count=1)) if _LEAD.match(plain) else plain
    return plain in NOT_A_LABEL or _NO_THEME.fullmatch(plain[: 2 * MOST_CHARACTERS]) is not None


def _bare(text: str) -> str:
    return text.strip("\"'`«»“”*_#[](){}<>.,;:!?… ")
