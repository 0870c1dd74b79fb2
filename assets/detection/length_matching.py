"""Which of many texts have the lengths that are wanted: neutral sentences as long as activating.

A score that is a maximum over tokens is the higher the longer the text, for any direction: of n
independent tokens with values drawn from F it is distributed as F^n. So texts are compared with
texts of the same lengths, in tokens of the model that reads them.

Of all choices of n different texts, one for each wanted length, the one of least total difference
|length - wanted| is taken (linear assignment: scipy, Crouse 2016); among equals the one of the
smallest hashes, so that features don't all get the same texts. What texts there are and how their
tokens are counted belong elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt64
from scipy.optimize import linear_sum_assignment


def matched_texts(
    wanted: Sequence[int],
    n: int,
    lengths: Int[np.ndarray, " n_texts"],
    hashes: UInt64[np.ndarray, " n_texts"],
) -> list[int]:
    """Places in `lengths` of `n` different texts, as long as those `wanted`, shortest first.

    Where `n` is not the number wanted, lengths spread evenly over the sorted `wanted` are matched.
    Without any wanted there is no length to match: the `n` of the smallest hashes. Raises
    ValueError where there are fewer than `n` texts.
    """
    if n > len(lengths):
        raise ValueError(f"{n} texts were asked for, of {len(lengths)} that there are")
    by_hash = np.argsort(hashes, kind="stable")
    if not len(wanted):
        return by_hash[:n].tolist()
    spread = ((np.arange(n) + 0.5) * len(wanted) / n).astype(int)
    targets = np.sort(np.asarray(wanted))[spread]
    place = np.empty(len(lengths))
    place[by_hash] = np.arange(len(lengths))
    # All n together weigh less than one token, so that hashes decide between equals only.
    cost = np.abs(lengths[None, :] - targets[:, None]) + place[None, :] / (n * len(lengths))
    _, chosen = linear_sum_assignment(cost)
    return chosen.tolist()
