"""Whole words around a token: tokenizer pieces joined to the word that a reader sees.

A token is often a piece of a word ("Mon" of "Monday"), and a label made from pieces describes the
tokenizer. A word here is the longest run of word characters around the token, with apostrophes and
hyphens inside it; a token of punctuation stands for itself. Scripts written without spaces keep the
token's own characters, since a run would be the whole sentence.
"""

from __future__ import annotations

from collections.abc import Sequence

_JOINERS = frozenset("'’-")
# Thai to Khmer, Japanese kana, CJK ideographs: written without spaces between words.
_UNSPACED = (
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3040, 0x30FF),
    (0x3400, 0x9FFF),
)


def word_span(pieces: Sequence[str], index: int) -> tuple[int, int]:
    """Character span [start, end) of the word that `pieces[index]` belongs to, in the joined text.

    The span of a token made of white space only is that white space.
    """
    text = "".join(pieces)
    start = sum(len(piece) for piece in pieces[:index])
    end = start + len(pieces[index])
    if not pieces[index].strip():
        return start, end
    while text[start].isspace():
        start += 1
    while text[end - 1].isspace():
        end -= 1
    if not any(_is_word_character(character) for character in text[start:end]):
        return start, end
    # A piece such as ",and" or "(Mon" carries punctuation: the word begins where letters do.
    while not _is_word_character(text[start]):
        start += 1
    while not _is_word_character(text[end - 1]):
        end -= 1
    while start > 0 and _continues_word(text, start - 1, -1):
        start -= 1
    while end < len(text) and _continues_word(text, end, 1):
        end += 1
    return start, end


def mark_word(pieces: Sequence[str], index: int) -> tuple[str, str]:
    """The whole word of `pieces[index]`, and the joined text with it between « and »."""
    start, end = word_span(pieces, index)
    text = "".join(pieces)
    return text[start:end], f"{text[:start]}«{text[start:end]}»{text[end:]}"


def _is_word_character(character: str) -> bool:
    # U+FFFD stands for a part of a multi-byte character: it belongs to its word.
    return character.isalnum() or character in "_\ufffd"


def _continues_word(text: str, index: int, step: int) -> bool:
    """Whether the character at `index` goes on the word that ends just before it, along `step`."""
    character = text[index]
    if character in _JOINERS:
        beyond = index + step
        return 0 <= beyond < len(text) and text[beyond].isalpha()
    if any(low <= ord(character) <= high for low, high in _UNSPACED):
        return False
    return _is_word_character(character)
