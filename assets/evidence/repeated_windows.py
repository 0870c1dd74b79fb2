"""Which windows repeat the words of one that was seen: a score on them says nothing of a label.

Documents that differ in a date or a last word (templates, news, boilerplate of the web) hold
windows that are the same to a reader. A window repeats those seen if its normalised words
(shared/word_runs.py) are those of one of them, if it shares LONG_RUN words in a row with one, or
if REPEATED_SHARE of its runs of SHORT_RUN words are in them. Five words in a row are what
de-duplication of training texts counts by (Lee et al., arXiv 2107.06499: near-duplicates by 5-gram
min-hash); what is shared by chance, such as a name or a turn of phrase, is mostly shorter.

What is shown and what is kept back must not repeat each other: of two that do, the one drawn later
is left out, and the next of its draw taken. What is drawn is contexts.py; that no such window came
through is checked in the labels stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

import numpy as np
from jaxtyping import Int

from assets.shared.word_runs import normalised_words, word_runs

LONG_RUN = 8
SHORT_RUN = 5
REPEATED_SHARE = 0.8
# A feature of boilerplate has as many repeats as there are documents.
MOST_LEFT_OUT = 1000


class SeenWindows:
    """Windows of one feature; of another text it can be asked whether it repeats one of them."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._whole: set[tuple[str, ...]] = set()
        self._runs: dict[int, set[tuple[str, ...]]] = {LONG_RUN: set(), SHORT_RUN: set()}
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        words = normalised_words(text)
        self._whole.add(words)
        for length, runs in self._runs.items():
            runs |= word_runs(words, length)

    def has_repeat(self, text: str) -> bool:
        """Whether the window with this text repeats one that was added."""
        if not self._whole:
            return False
        words = normalised_words(text)
        if words in self._whole or word_runs(words, LONG_RUN) & self._runs[LONG_RUN]:
            return True
        runs = word_runs(words, SHORT_RUN)
        return bool(runs) and len(runs & self._runs[SHORT_RUN]) >= REPEATED_SHARE * len(runs)


class TwoSides:
    """A feature's windows that are shown and that are kept back; none repeats the other side's.

    `text_of` gives the text of the window around a token. `n_left_out` counts those left out.
    """

    def __init__(self, text_of: Callable[[int], str]) -> None:
        self._text_of = text_of
        self._shown, self._kept = SeenWindows(), SeenWindows()
        self.n_left_out = 0

    def show(self, peaks: Iterable[int], count: int) -> Int[np.ndarray, " m"]:
        """Places of the first `count` of these tokens that can be shown."""
        return self._take(peaks, count, self._shown, self._kept)

    def keep(self, peaks: Iterable[int], count: int) -> Int[np.ndarray, " m"]:
        """Places of the first `count` of these tokens that can be kept back."""
        return self._take(peaks, count, self._kept, self._shown)

    def _take(
        self, peaks: Iterable[int], count: int, own: SeenWindows, other: SeenWindows
    ) -> Int[np.ndarray, " m"]:
        found: list[int] = []
        for place, peak in enumerate(islice(peaks, count + MOST_LEFT_OUT) if count else ()):
            text = self._text_of(int(peak))
            if other.has_repeat(text):
                self.n_left_out += 1
                continue
            own.add(text)
            found.append(place)
            if len(found) == count:
                break
        return np.array(found, dtype=np.int64)
