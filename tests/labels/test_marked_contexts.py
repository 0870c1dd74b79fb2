"""Marks on the peak word, or on words that are not active, in a line cut around the peak."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.evidence.words import mark_word
from assets.labels.evidence_shown import context_line
from assets.labels.marked_contexts import ACTIVE_SHARE, MarkedContext

PIECES = [" On", " Mon", "day", " and", " Friday", ",", " he", " sl", "ept", "."]
VALUES = [0.0, 1.0, 2.0, 0.1, 1.5, 0.0, 0.0, 0.0, 0.2, 0.0]


def row(pieces: list[str], values: list[float], peak: int | None) -> dict[str, Any]:
    """A row of `contexts` that peaks at piece `peak`; None for one without a mark."""
    text = "".join(pieces)
    word, marked = ("", text) if peak is None else mark_word(pieces, peak)
    found = {"text": text, "peak_token": word, "marked_text": marked}
    return found | {"window_tokens": pieces, "window_coefficients": values}


ROW = row(PIECES, VALUES, 2)


def test_whole_words_are_active_by_their_strongest_token() -> None:
    context = MarkedContext(ROW, 24)
    assert context.marked(context.active) == "On «Monday» and «Friday», he slept."
    assert context.marked([]) == "On Monday and Friday, he slept."


def test_wrong_marks_stand_on_quiet_words_first() -> None:
    context = MarkedContext(ROW, 24)
    quiet = {"On", "he", ",", "."}
    for salt in range(10):
        marked = context.marked(context.others(2, (salt,)))
        words = {part.split("»")[0] for part in marked.split("«")[1:]}
        assert len(words) == 2 and words <= quiet
    everything = context.marked(context.others(99, (0,)))
    assert "«Monday»" not in everything and everything.count("«") == 6
    assert len({context.marked(context.others(1, (salt,))) for salt in range(20)}) > 1


def test_a_wrong_mark_is_of_the_peaks_sort() -> None:
    """A peak on a word is not told from marks on commas; nor one on a comma from marks on words."""
    marks = {
        peak: {
            MarkedContext(row(PIECES, values, peak), 24).marked(
                MarkedContext(row(PIECES, values, peak), 24).others(1, (salt,))
            )
            for salt in range(20)
        }
        for peak, values in (
            (2, VALUES),
            (5, [float(i == 5) for i in range(len(PIECES))]),
        )
    }
    assert {re.findall("«(.*)»", line)[0] for line in marks[2]} == {"On", "he"}
    assert {re.findall("«(.*)»", line)[0] for line in marks[5]} == {"."}


def test_the_line_is_cut_around_the_peak() -> None:
    context = MarkedContext(ROW, 3)
    assert context.marked(context.active) == "On «Monday» and"
    late = MarkedContext(row(PIECES, VALUES, 7), 2)
    assert late.marked(late.active) == "he «slept»."


@pytest.mark.parametrize(
    ("pieces", "peak", "line"),
    [
        ([" «", "Un", "»", " dit", " il", " «", "lundi", "»", " soir"], 6, "il ««lundi»» soir"),
        ([" «", "lundi", "»", " et", " puis", " lundi", " soir"], 5, "puis «lundi» soir"),
        ([" a", " «", " b", " «", " c"], 3, "b ««» c"),
    ],
)
def test_marks_of_the_text_itself_do_not_move_the_peak(
    pieces: list[str], peak: int, line: str
) -> None:
    of_row = row(pieces, [float(i == peak) for i in range(len(pieces))], peak)
    context = MarkedContext(of_row, 3)
    assert context.peak is not None and context.peak in context.active
    assert context.marked([context.peak]) == line
    assert context_line(of_row, 3, is_marked=True) == line


def test_a_context_without_a_mark_has_no_peak() -> None:
    assert MarkedContext(row(PIECES, VALUES, None), 3).peak is None


@given(
    words=st.lists(st.sampled_from([" a", " bc", "d", " é", "\n", "!", " «", "猫"]), max_size=30),
    values=st.lists(st.floats(0, 9), min_size=30, max_size=30),
    n=st.integers(1, 12),
)
def test_marks_of_any_text_are_right_and_lose_no_word(
    words: list[str], values: list[float], n: int
) -> None:
    context = MarkedContext(row(words, values[: len(words)], None), n)
    plain = context.marked([])
    assert len(plain.split()) <= n
    active, others = context.active, context.others(len(context.active), (0,))
    assert not {w.span for w in active} & {w.span for w in others}
    largest = max((word.coefficient for word in context.words), default=0.0)
    assert all(word.coefficient > ACTIVE_SHARE * largest for word in active)
    n_marks = context.marked(active).count("«") - plain.count("«")
    assert n_marks == len(active)
    if "«" not in plain:
        assert context.marked(active).replace("«", "").replace("»", "") == plain
