"""A context with words between « and »: where it peaks, or wrongly elsewhere.

A word is active where one of its tokens has a coefficient above `ACTIVE_SHARE` of the context's
largest. The right mark stands on the peak word. Wrong marks are words that are not active, those
none of whose tokens has a coefficient first, of these the ones that are a word where the peak is
one (or a sign where it is one: a judge must not tell marks by commas), drawn in hash order. After
fuzzing in delphi (Paulo et al., arXiv 2410.13928, sec. 3.2), which marks all active words. A line
has at most `max_words` words around the peak.

Which contexts are marked where is asked_texts.py's matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from assets.evidence.words import word_span
from assets.labels.evidence_shown import peak_start
from assets.shared.hash_order import mixed, text_hashes

ACTIVE_SHARE = 0.3

Span = tuple[int, int]


@dataclass(frozen=True)
class Word:
    """A whole word of a context: its characters, and the largest coefficient of its tokens."""

    span: Span
    coefficient: float


class MarkedContext:
    """A row of `contexts` as words that can be marked, cut to `max_words` around the peak."""

    def __init__(self, row: Mapping[str, Any], max_words: int) -> None:
        pieces, coefficients = list(row["window_tokens"]), list(row["window_coefficients"])
        self.text = "".join(pieces)
        spans: dict[Span, float] = {}
        for index, (piece, coefficient) in enumerate(zip(pieces, coefficients, strict=True)):
            if piece.strip():
                span = word_span(pieces, index)
                spans[span] = max(spans.get(span, 0.0), float(coefficient))
        marked, peak = str(row["marked_text"]), str(row["peak_token"])
        self._peak_start = peak_start(self.text, marked, peak)
        self.extent = self._extent(max_words)
        start, end = self.extent
        words = _without_overlaps(Word(span, value) for span, value in sorted(spans.items()))
        self.words = [word for word in words if start <= word.span[0] and word.span[1] <= end]

    def _extent(self, max_words: int) -> Span:
        """First and last character of the words around the peak word."""
        chunks = [match.span() for match in re.finditer(r"\S+", self.text)]
        if not chunks:
            return 0, 0
        ends = (i for i, (_, end) in enumerate(chunks) if (self._peak_start or 0) < end)
        at = next(ends, len(chunks) - 1)
        first = max(0, at - max_words // 2)
        return chunks[first][0], chunks[min(first + max_words, len(chunks)) - 1][1]

    @cached_property
    def peak(self) -> Word | None:
        """The word that `marked_text` marks; None where there is no such word."""
        at = -1 if self._peak_start is None else self._peak_start
        return next((word for word in self.words if word.span[0] <= at < word.span[1]), None)

    @cached_property
    def active(self) -> list[Word]:
        largest = max((word.coefficient for word in self.words), default=0.0)
        return [w for w in self.words if largest > 0 and w.coefficient > ACTIVE_SHARE * largest]

    def others(self, n: int, salt: Sequence[int | str]) -> list[Word]:
        """`n` drawn words that are not active: quiet ones first, then those of the peak's sort."""
        active = {word.span for word in self.active}
        rest = [word for word in self.words if word.span not in active]
        places = np.array([word.span[0] for word in rest], dtype=np.int64)
        hashes = mixed(text_hashes(["marks"], *salt)[0], places)
        is_weak = np.array([word.coefficient > 0 for word in rest], dtype=bool)
        is_of_other_sort = np.array(
            [self.peak is not None and self._is_sign(w) != self._is_sign(self.peak) for w in rest],
            dtype=bool,
        )
        return [rest[i] for i in np.lexsort((hashes, is_of_other_sort, is_weak))[:n]]

    def _is_sign(self, word: Word) -> bool:
        """Whether it has neither letter nor digit."""
        return not any(character.isalnum() for character in self.text[slice(*word.span)])

    def marked(self, words: Sequence[Word]) -> str:
        """The line with « and » around `words`; others stand as they are."""
        start, end = self.extent
        line, place = "", start
        for low, high in sorted(word.span for word in words):
            line += f"{self.text[place:low]}«{self.text[low:high]}»"
            place = high
        return " ".join((line + self.text[place:end]).split())


def _without_overlaps(words: Iterable[Word]) -> list[Word]:
    """Words that share characters (scripts written without spaces) as one."""
    merged: list[Word] = []
    for word in words:
        (low, high), value = word.span, word.coefficient
        if merged and low < merged[-1].span[1]:
            last = merged.pop()
            low, high = last.span[0], max(high, last.span[1])
            value = max(value, last.coefficient)
        merged.append(Word((low, high), value))
    return merged
