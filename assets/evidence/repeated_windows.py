"""Which windows repeat the words of one that was seen: a score on them says nothing of a label.

Documents that differ in a date or a last word (templates, news, boilerplate of the web) hold
windows that are the same to a reader. A window repeats those seen if its normalised words
(shared/word_runs.py) are those of one of them, if it shares LONG_RUN words in a row with one, or
if REPEATED_SHARE of its runs of SHORT_RUN words are in them. Five words in a row are what
de-duplication of training texts counts by (Lee et al., arXiv 2107.06499: near-duplicates by 5-gram
min-hash); what is shared by chance, such as a name or a turn of phrase, is mostly shorter.

What is kept back must not repeat what is shown, all of it taken together: whichever window is drawn
later and makes it so is left out, and the next of its draw taken. What is drawn is contexts.py;
that no such window came through is checked in the labels stage.
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

    def has_repeat(self, text: str, more: SeenWindows | None = None) -> bool:
        """Whether the window with this text repeats those that were added, and `more` with them."""
        words = normalised_words(text)
        seen = [self] if more is None else [self, more]
        if any(words in one._whole for one in seen):
            return True
        long_runs, short_runs = (
            {run for one in seen for run in word_runs(words, length) & one._runs[length]}
            for length in (LONG_RUN, SHORT_RUN)
        )
        n_runs = len(word_runs(words, SHORT_RUN))
        return bool(long_runs) or len(short_runs) >= REPEATED_SHARE * n_runs > 0


class TwoSides:
    """A feature's windows that are shown and that are kept back; none kept repeats those shown.

    `text_of` gives the text of the window around a token. `n_left_out` counts those left out.
    """

    def __init__(self, text_of: Callable[[int], str]) -> None:
        self._text_of = text_of
        self._shown = SeenWindows()
        self._kept: list[str] = []
        self.n_left_out = 0

    def show(self, peaks: Iterable[int], count: int) -> Int[np.ndarray, " m"]:
        """Places of the first `count` of these tokens that can be shown."""
        return self._take(peaks, count, self._can_be_shown, self._shown.add)

    def keep(self, peaks: Iterable[int], count: int) -> Int[np.ndarray, " m"]:
        """Places of the first `count` of these tokens that can be kept back."""
        return self._take(peaks, count, self._can_be_kept, self._kept.append)

    def _can_be_kept(self, text: str) -> bool:
        return not self._shown.has_repeat(text)

    def _can_be_shown(self, text: str) -> bool:
        new = SeenWindows([text])
        return not any(self._shown.has_repeat(one, new) for one in self._kept)

    def _take(
        self,
        peaks: Iterable[int],
        count: int,
        can_be_taken: Callable[[str], bool],
        add: Callable[[str], None],
    ) -> Int[np.ndarray, " m"]:
        found: list[int] = []
        for place, peak in enumerate(islice(peaks, count + MOST_LEFT_OUT) if count else ()):
            text = self._text_of(int(peak))
            if not can_be_taken(text):
                self.n_left_out += 1
                continue
            add(text)
            found.append(place)
            if len(found) == count:
                break
        return np.array(found, dtype=np.int64)
