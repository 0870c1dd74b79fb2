"""Labels of other features, put to two uses: foils of a forced choice, and the shuffled control.

Shuffled labels: the labelled features stand in a circle, in an order drawn by the seed, and each is
given the label of the next one that is called otherwise. Where no two labels are equal that is a
permutation without a fixed point (a derangement). Judged by them, contexts should score as if the
judge knew nothing (AUROC 0.5): what a label scores above its shuffled ones is its own.

Both draws are in hash order (shared/hash_order.py): a label that changes changes the questions that
it is part of, and few others. A label that failed (None) is drawn like any other, as it would be
had the LLM answered, and what it is drawn for is not asked: a failure changes no other question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from assets.labels.score_prompts import SPARE_FOILS
from assets.shared.hash_order import mixed, text_hashes


def draw_foils(
    labels: Mapping[int, str | None], n: int, *, avoid: Sequence[str], salt: Sequence[int]
) -> list[str | None]:
    """`n` different labels that are none of `avoid`: of `labels`' features, else spare ones.

    None stands for a label that failed.
    """
    features = np.array(list(labels), dtype=np.int64)
    drawn = features[np.argsort(mixed(text_hashes(["foil"], *salt)[0], features), kind="stable")]
    spare = np.argsort(text_hashes(SPARE_FOILS, *salt), kind="stable")
    foils = [labels[int(i)] for i in drawn] + [SPARE_FOILS[int(i)] for i in spare]
    avoided = {label.casefold() for label in avoid}
    pool: list[str | None] = []
    for foil in foils:
        if len(pool) == n:
            break
        if foil is None or foil.casefold() not in avoided:
            pool.append(foil)
            avoided |= set() if foil is None else {foil.casefold()}
    return pool


def shuffled_labels(labels: Mapping[int, str | None], n: int, *, seed: int) -> dict[int, str]:
    """Feature → another feature's label, for `n` drawn features, at most half of `labels`.

    Empty where all labels are alike or there is one only. Left out are features whose own label or
    the one they would be given is None.
    """
    features = np.array(list(labels), dtype=np.int64)
    hashes = mixed(text_hashes(["shuffled"], seed)[0], features)
    circle = features[np.argsort(hashes, kind="stable")].tolist()
    given: dict[int, str] = {}
    for place, feature_id in enumerate(circle[: min(n, len(circle) // 2)]):
        own = labels[feature_id]
        if own is None:
            continue
        following = (labels[other] for other in circle[place + 1 :] + circle[:place])
        is_other = (x for x in following if x is None or x.casefold() != own.casefold())
        other = next(is_other, None)
        if other is not None:
            given[feature_id] = other
    return given
