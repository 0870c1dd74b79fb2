"""Pieces join to the word a reader sees."""

from __future__ import annotations

import pytest

from assets.evidence.words import mark_word


@pytest.mark.parametrize(
    ("pieces", "index", "word", "marked"),
    [
        ([" On", " Mon", "day", ",", " rain"], 1, "Monday", " On «Monday», rain"),
        ([" On", " Mon", "day", ",", " rain"], 2, "Monday", " On «Monday», rain"),
        ([" On", " Mon", "day", ",", " rain"], 3, ",", " On Monday«,» rain"),
        (["don", "'", "t", " go"], 0, "don't", "«don't» go"),
        (["the", " (", "Mon", ")"], 2, "Mon", "the («Mon»)"),
        ([" (Mon", "day)"], 0, "Monday", " («Monday»)"),
        (["a", "\n", "b"], 1, "\n", "a«\n»b"),
        (["今日", "は", "晴れ"], 1, "は", "今日«は»晴れ"),
        (["caf", "\ufffd", "\ufffd"], 0, "caf\ufffd\ufffd", "«caf\ufffd\ufffd»"),
        (["x", " '", "quoted", "'"], 2, "quoted", "x '«quoted»'"),
    ],
)
def test_the_whole_word_is_marked(pieces: list[str], index: int, word: str, marked: str) -> None:
    assert mark_word(pieces, index) == (word, marked)
