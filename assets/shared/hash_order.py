"""Seeded draws that hold still when the corpus changes a little: sampling in hash order.

A draw by a generator over an array changes as a whole when one item comes or goes. Instead each
item gets a number from its own name and the seed alone, as good as random, and the n items with
the smallest numbers are taken (bottom-k sampling; Cohen and Kaplan 2007, "Summarizing data using
bottom-k sketches"). A new item then enters a draw of n out of N with probability n / (N + 1), puts
out one other at most, and leaves all else as it was.

What is drawn, and which halves and strata there are, belongs to the stages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from jaxtyping import Int, UInt64

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))


def text_hashes(texts: Iterable[str], *salt: int | str) -> UInt64[np.ndarray, " n"]:
    """A number for each text from the text and `salt` (seed, purpose …) alone (blake2b)."""
    # repr keeps the parts of the salt apart, and 1 from "1".
    seeded = hashlib.blake2b(repr(salt).encode(), digest_size=8)

    def number(text: str) -> int:
        one = seeded.copy()
        one.update(text.encode())
        return int.from_bytes(one.digest(), "little")

    return np.fromiter((number(text) for text in texts), dtype=np.uint64)


def mixed(
    hashes: UInt64[np.ndarray, " *n"] | np.uint64, numbers: Int[np.ndarray, " *n"] | int
) -> UInt64[np.ndarray, " *n"]:
    """New hashes from hashes and whole numbers, as good as independent of those of other numbers.

    The finalizer of splitmix64 (Steele, Lea and Flood 2014); shapes broadcast. Much cheaper than
    hashing texts anew for each of many features.
    """
    with np.errstate(over="ignore"):
        value = np.asarray(hashes) + (np.asarray(numbers).astype(np.uint64) + np.uint64(1)) * (
            _GOLDEN
        )
        value = (value ^ (value >> _SHIFTS[0])) * _MULTIPLIERS[0]
        value = (value ^ (value >> _SHIFTS[1])) * _MULTIPLIERS[1]
        return value ^ (value >> _SHIFTS[2])
