"""Stable identity: a feature keeps its feature_id when a refit finds it again.

The features of the last fit and of the new one are matched one to one so that the sum of cosines is
largest, over pairs whose cosine reaches `match_threshold` and whose names (concepts, where a method
has them) agree. A matched feature keeps its id; any other gets an id never used before, so the ids
of lost features are not used again.

Pairs below the threshold have no say in the matching: the graph of the others falls into small
connected parts, and the Hungarian method (scipy) runs on each. That is exact, and no dense k x k
matrix is kept. Split and merged features are read off nearest neighbours at `split_threshold`,
which is lower: halves of one direction have a cosine of 0.71 with it at most when they are equal
and orthogonal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from assets.factorization.comparison_tables import FEATURE_MATCHES

MatchKind = Literal["kept", "new", "lost", "split", "merged"]
# Rows of cosines computed at a time.
ROW_CHUNK = 2_048


@dataclass(frozen=True)
class PreviousFeatures:
    """The features of the fit before; `dictionary` row i is the feature `feature_ids[i]`."""

    dictionary: Float[Tensor, "k_previous d"]
    feature_ids: Sequence[int]
    next_feature_id: int
    names: Sequence[str | None] | None = None
    snapshot: int | None = None


@dataclass(frozen=True)
class Match:
    """One row of `feature_matches`."""

    kind: MatchKind
    feature_id: int | None
    previous_feature_id: int | None
    cosine: float | None


@dataclass(frozen=True)
class Identities:
    """Ids of a new dictionary's rows, the next id to give, and what became of the features."""

    feature_ids: list[int]
    next_feature_id: int
    matches: list[Match]
    previous_snapshot: int | None

    def count(self, kind: MatchKind) -> int:
        """Number of matches of a kind."""
        return sum(match.kind == kind for match in self.matches)

    def frame(self) -> pl.DataFrame:
        """Rows of `feature_matches`."""
        schema = FEATURE_MATCHES.empty().drop(FEATURE_MATCHES.partition_by).schema
        rows = [
            {"match": i, "previous_snapshot": self.previous_snapshot, **vars(match)}
            for i, match in enumerate(self.matches)
        ]
        return pl.DataFrame(rows, schema=schema)


def first_identities(n_features: int) -> Identities:
    """Ids 0 … k − 1 of a first fit: all of its features are new."""
    ids = list(range(n_features))
    return Identities(ids, n_features, [Match("new", i, None, None) for i in ids], None)


def kept_identities(previous: PreviousFeatures) -> Identities:
    """Ids of a dictionary that stays as it is."""
    matches = [Match("kept", i, i, 1.0) for i in previous.feature_ids]
    return Identities(
        list(previous.feature_ids), previous.next_feature_id, matches, previous.snapshot
    )


def assign_identities(
    previous: PreviousFeatures | None,
    dictionary: Float[Tensor, "k d"],
    *,
    names: Sequence[str | None] | None = None,
    match_threshold: float = 0.7,
    split_threshold: float = 0.5,
) -> Identities:
    """Ids for the rows of a new dictionary.

    `names` are the rows' concepts; a named feature matches only one of the same name. A dictionary
    of another width has nothing to be matched with: all its features are new, all before are lost.
    """
    if previous is None:
        return first_identities(len(dictionary))
    near = _near_pairs(previous, dictionary, names, min(match_threshold, split_threshold))
    matched = matched_pairs(near, match_threshold)
    next_id = previous.next_feature_id
    ids = []
    for row in range(len(dictionary)):
        if row in matched:
            ids.append(previous.feature_ids[matched[row][0]])
        else:
            ids.append(next_id)
            next_id += 1
    matches = [
        *_kept_new_lost(previous, ids, near, matched),
        *_splits(previous, ids, near, matched, split_threshold),
        *_merges(previous, ids, near, matched, split_threshold),
    ]
    return Identities(ids, next_id, matches, previous.snapshot)


@dataclass(frozen=True)
class NearPairs:
    """Pairs (row of the new dictionary, row of the one before) of some cosine on, and the nearest.

    `nearest_before` and `nearest_now` hold, for each row of one side, its largest cosine with a row
    of the other (NaN where there is none), whether or not it is among the pairs.
    """

    now: Int[np.ndarray, " n_pairs"]
    before: Int[np.ndarray, " n_pairs"]
    cosine: Float[np.ndarray, " n_pairs"]
    nearest_before: Float[np.ndarray, " k"]
    nearest_now: Float[np.ndarray, " k_previous"]

    def best(self, side: Literal["now", "before"], threshold: float) -> dict[int, int]:
        """For each row of a side, its nearest row of the other, where one reaches the threshold."""
        order = np.argsort(self.cosine, kind="stable")
        own, other = getattr(self, side), self.before if side == "now" else self.now
        return {int(own[i]): int(other[i]) for i in order if self.cosine[i] >= threshold}


def _near_pairs(
    previous: PreviousFeatures,
    dictionary: Tensor,
    names: Sequence[str | None] | None,
    threshold: float,
) -> NearPairs:
    n_now, n_before = len(dictionary), len(previous.dictionary)
    nearest_before, nearest_now = np.full(n_now, np.nan), np.full(n_before, np.nan)
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    is_same_width = previous.dictionary.shape[1] == dictionary.shape[1]
    begins = range(0, n_now, ROW_CHUNK) if is_same_width and n_before else ()
    before = torch.nn.functional.normalize(previous.dictionary.float().cpu(), dim=1)
    for begin in begins:
        rows = dictionary[begin : begin + ROW_CHUNK].float().cpu()
        cosine = (torch.nn.functional.normalize(rows, dim=1) @ before.t()).double().numpy()
        cosine = cosine.clip(-1, 1)
        if names is not None and previous.names is not None:
            mine = np.asarray(names[begin : begin + ROW_CHUNK], dtype=object)
            is_other = mine[:, None] != np.asarray(previous.names, dtype=object)[None, :]
            cosine = np.where(is_other, -np.inf, cosine)
        nearest_before[begin : begin + len(rows)] = cosine.max(axis=1)
        nearest_now = np.fmax(nearest_now, cosine.max(axis=0))
        own, other = np.nonzero(cosine >= threshold)
        parts.append((own + begin, other, cosine[own, other]))
    own, other, cosines = (
        (np.concatenate(column) for column in zip(*parts, strict=True))
        if parts
        else (np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    )
    nearest_before[np.isinf(nearest_before)] = np.nan
    nearest_now[np.isinf(nearest_now)] = np.nan
    return NearPairs(own, other, cosines, nearest_before, nearest_now)


def matched_pairs(near: NearPairs, threshold: float) -> dict[int, tuple[int, float]]:
    """Row of the new dictionary → (row before, cosine): the matching of largest sum of cosines."""
    is_usable = near.cosine >= threshold
    now, before, cosine = near.now[is_usable], near.before[is_usable], near.cosine[is_usable]
    n_now, n_before = len(near.nearest_before), len(near.nearest_now)
    size = n_now + n_before
    graph = csr_matrix((np.ones(len(now)), (now, n_now + before)), shape=(size, size))
    _, part_of = connected_components(graph, directed=False)
    matched: dict[int, tuple[int, float]] = {}
    order = np.argsort(part_of[now], kind="stable")
    boundaries = np.flatnonzero(np.diff(part_of[now][order])) + 1
    for pairs in np.split(order, boundaries):
        rows, row = np.unique(now[pairs], return_inverse=True)
        columns, column = np.unique(before[pairs], return_inverse=True)
        reward = np.zeros((len(rows), len(columns)))
        reward[row, column] = cosine[pairs]
        for i, j in zip(*linear_sum_assignment(reward, maximize=True), strict=True):
            if reward[i, j] >= threshold:
                matched[int(rows[i])] = (int(columns[j]), float(reward[i, j]))
    return matched


def _kept_new_lost(
    previous: PreviousFeatures,
    ids: list[int],
    near: NearPairs,
    matched: Mapping[int, tuple[int, float]],
) -> list[Match]:
    rows = []
    for row, feature_id in enumerate(ids):
        if row in matched:
            rows.append(Match("kept", feature_id, feature_id, matched[row][1]))
        else:
            rows.append(Match("new", feature_id, None, _or_none(near.nearest_before[row])))
    kept = {before for before, _ in matched.values()}
    for before, feature_id in enumerate(previous.feature_ids):
        if before not in kept:
            rows.append(Match("lost", None, feature_id, _or_none(near.nearest_now[before])))
    return rows


def _splits(
    previous: PreviousFeatures,
    ids: list[int],
    near: NearPairs,
    matched: Mapping[int, tuple[int, float]],
    threshold: float,
) -> list[Match]:
    """A feature before that is the nearest of several now: its own heir, and new ones."""
    cosine = _cosines(near)
    nearest = {
        now: before
        for now, before in near.best("now", threshold).items()
        if now not in matched or matched[now][0] == before
    }
    n_heirs = Counter(nearest.values())
    return [
        Match("split", ids[now], previous.feature_ids[before], cosine[now, before])
        for now, before in sorted(nearest.items())
        if n_heirs[before] > 1
    ]


def _merges(
    previous: PreviousFeatures,
    ids: list[int],
    near: NearPairs,
    matched: Mapping[int, tuple[int, float]],
    threshold: float,
) -> list[Match]:
    """A feature now that is the nearest of several before: its own ancestor, and lost ones."""
    cosine = _cosines(near)
    heir_of = {before: now for now, (before, _) in matched.items()}
    nearest = {
        before: now
        for before, now in near.best("before", threshold).items()
        if before not in heir_of or heir_of[before] == now
    }
    n_ancestors = Counter(nearest.values())
    return [
        Match("merged", ids[now], previous.feature_ids[before], cosine[now, before])
        for before, now in sorted(nearest.items())
        if n_ancestors[now] > 1
    ]


def _cosines(near: NearPairs) -> dict[tuple[int, int], float]:
    keys = zip(near.now.tolist(), near.before.tolist(), strict=True)
    return dict(zip(keys, near.cosine.tolist(), strict=True))


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
