"""Texts as normalised words, and the hash by which nearly equal texts are known: min-hash.

Words are told apart without case, punctuation and width; a number is a number, whatever its value
(templates and dates), unless half of the words are numbers, for then the numbers are the text. A
character of a script without spaces is a word of its own.

Min-hash (Broder 1997, "On the resemblance and containment of documents"): of the hashes of a
text's runs of RUN words the smallest. Two texts that share the share J of their runs (Jaccard) have
the same one with probability J, and each text's follows from that text alone. A text of fewer words
is one run; one without words stands for itself.

What nearly equal texts must not do is for the stages to say.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int, UInt64

from assets.shared.hash_order import mixed, text_hashes

# Short ones, for in a text of a dozen words each changed word changes so many runs.
RUN = 3
NUMBER = "0"
_BATCH = 4096
_MOST_WORDS_KEPT = 1_000_000
# A number with its separators; a character of Thai to Khmer, kana, CJK ideographs; letters.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"\d+(?:[.,:/-]\d+)*(?![^\W_])|[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def normalised_words(text: str) -> tuple[str, ...]:
    """The words of `text` as they are compared; a text without words is one, without spaces."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    words = _WORD.findall(text.casefold())
    is_number = [word[0].isdecimal() and word[-1].isdecimal() for word in words]
    if 0 < 2 * sum(is_number) < len(words):
        pairs = zip(words, is_number, strict=True)
        return tuple(NUMBER if is_one else word for word, is_one in pairs)
    return tuple(words) or ("".join(text.split()),)


def word_runs(words: Sequence[str], length: int) -> set[tuple[str, ...]]:
    """The runs of `length` words; none where there are fewer words."""
    return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}


def minhashes(texts: Iterable[str]) -> list[str]:
    """The min-hash of each text over its runs of RUN words, 16 hex digits.

    Linear in the words; of more than a million different ones the hashes are made anew.
    """
    hash_of: dict[str, int] = {}
    found: list[str] = []
    batch: list[tuple[str, ...]] = []
    for text in texts:
        batch.append(normalised_words(text))
        if len(batch) == _BATCH:
            found += _of_batch(batch, hash_of)
            batch = []
    return found + _of_batch(batch, hash_of) if batch else found


def _of_batch(batch: Sequence[tuple[str, ...]], hash_of: dict[str, int]) -> list[str]:
    # Shorter texts are filled up with a word that none has, to one run.
    padded = [words + ("",) * (RUN - len(words)) for words in batch]
    if len(hash_of) > _MOST_WORDS_KEPT:
        hash_of.clear()
    new = sorted({word for words in padded for word in words} - hash_of.keys())
    hash_of.update(zip(new, text_hashes(new, "word").tolist(), strict=True))
    hashes = np.fromiter((hash_of[word] for words in padded for word in words), dtype=np.uint64)
    n_runs = np.array([len(words) - RUN + 1 for words in padded])
    runs = _run_hashes(hashes, n_runs)
    smallest = np.minimum.reduceat(runs, np.cumsum(n_runs) - n_runs)
    return [f"{value:016x}" for value in smallest.tolist()]


def _run_hashes(
    words: UInt64[np.ndarray, " n_words"], n_runs: Int[np.ndarray, " n_texts"]
) -> UInt64[np.ndarray, " n_runs"]:
    """Hashes of the runs that lie within one text, text after text."""
    # A text's runs begin at its words but the last RUN - 1.
    text = np.repeat(np.arange(len(n_runs)), n_runs)
    start = np.arange(len(text)) + (RUN - 1) * text
    runs = words[start]
    with np.errstate(over="ignore"):
        for place in range(1, RUN):
            runs = mixed(runs, place) + words[start + place]
    return mixed(runs, RUN)
