"""`rank: auto`: as many features as another half of the documents shows again.

For each candidate k the documents are halved at random, n_seeds times; an SNMF of rank k is fitted
on each half, with a seed of its own. A feature is reproduced when its match in the other half's
dictionary (Hungarian on cosine) reaches a threshold; of features this near to each other within one
dictionary only the strongest counts, for a rank too high finds true features twice. With r(k) the
mean number of features reproduced and r* the largest of them, the candidate nearest to r* is
chosen, by |log2(k / r*)|, the smaller on a tie. Below the true rank features are merged and few are
reproduced; above it the surplus differs from half to half; so r* estimates the number of features
there are to find.

A rank overfits, and takes no part, where the explained variance of the half that a fit did not see
lies more than one standard error below that of a smaller rank. On real activations r(k) may still
rise at the largest candidate (it did up to 256 on SmolLM2, layer 15, 13,790 tokens): the reason
then says so, and r* is what that candidate can show.

Disjoint halves, not just other seeds on the same tokens: at a high rank a feature can memorise a
document, and any seed finds it again. Split-half stability as a criterion of model order: Lange,
Roth, Braun and Buhmann (2004), "Stability-based validation of clustering solutions"; for NMF, Wu et
al. (2016), PNAS 113:4290. The rule is this project's. Seeds on one and the same set of tokens, for
a fixed rank, are in stability.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from torch import Tensor

from assets.factorization.comparison_tables import RANK_CHOICES
from assets.factorization.config import FitConfig
from assets.factorization.half_fits import (
    HalfFits,
    distinct_rows,
    fit_halves,
    halved_documents,
)
from assets.factorization.inputs import FactorizationError, as_matrix
from assets.factorization.metrics import match_features

SMALLEST_CANDIDATE, LARGEST_CANDIDATE = 8, 256
# A half has at least so many tokens a feature where candidates are left to the default.
TOKENS_A_FEATURE = 8
# How much more the largest candidate shows than the others where the count has not levelled off.
STILL_RISING = 1.1

CandidateCallback = Callable[[int, int], None]


@dataclass(frozen=True)
class Candidate:
    """What the fits of one rank showed; None where none could be made, with the reason."""

    rank: int
    held_out: list[float]
    stability: float | None
    n_reproduced: float | None
    match_next_rank: float | None
    reason: str | None = None

    @property
    def held_out_mean(self) -> float | None:
        return float(np.mean(self.held_out)) if self.held_out else None

    @property
    def held_out_standard_error(self) -> float | None:
        if len(self.held_out) < 2:
            return None
        return float(np.std(self.held_out, ddof=1) / len(self.held_out) ** 0.5)


@dataclass(frozen=True)
class RankChoice:
    """The rank chosen, why, and what each candidate showed."""

    rank: int
    reason: str
    candidates: list[Candidate]
    distances: list[float | None]
    overfits: list[bool]
    n_tokens: int
    n_seeds: int
    seed: int

    def frame(self) -> pl.DataFrame:
        """Rows of `rank_choices`."""
        schema = RANK_CHOICES.empty().drop(RANK_CHOICES.partition_by).schema
        return pl.DataFrame([self._row(i) for i in range(len(self.candidates))], schema=schema)

    def _row(self, index: int) -> dict[str, object]:
        candidate, is_chosen = self.candidates[index], self.candidates[index].rank == self.rank
        status, reason = "ok", self.reason if is_chosen else None
        if candidate.reason is not None:
            status, reason = "failed", candidate.reason
        elif self.overfits[index]:
            status = "overfits"
            reason = "held-out explained variance below that of a smaller rank"
        return {
            "rank": candidate.rank,
            "n_seeds": self.n_seeds,
            "seed": self.seed,
            "n_tokens": self.n_tokens,
            "held_out_explained_variance": candidate.held_out_mean,
            "held_out_standard_error": candidate.held_out_standard_error,
            "stability": candidate.stability,
            "n_reproduced": candidate.n_reproduced,
            "match_next_rank": candidate.match_next_rank,
            "distance": self.distances[index],
            "is_chosen": is_chosen,
            "status": status,
            "reason": reason,
        }


def default_candidates(n_tokens: int) -> tuple[int, ...]:
    """Powers of two from 8 to 256, as far as half of the tokens bears them; 8 at least."""
    largest = min(LARGEST_CANDIDATE, n_tokens // 2 // TOKENS_A_FEATURE)
    ranks = [SMALLEST_CANDIDATE]
    while 2 * ranks[-1] <= largest:
        ranks.append(2 * ranks[-1])
    return tuple(ranks)


def choose_rank(
    activations: Float[Tensor, "n_tokens d"],
    group_of_token: Int[np.ndarray, " n_tokens"],
    fit: FitConfig,
    *,
    is_massive: Bool[Tensor, " n_tokens"] | None = None,
    on_fit: CandidateCallback | None = None,
) -> RankChoice:
    """Choose the rank of an SNMF among the fit's candidates.

    `group_of_token` numbers the document of each token: tokens of one document are alike, so a
    document goes to one half as a whole. Massive tokens take no part. `on_fit(done, total)` is
    called after each rank's fits. Raises FactorizationError for fewer than two documents, and
    where no candidate admits a fit.
    """
    matrix = as_matrix(activations)
    if is_massive is not None:
        is_kept = ~is_massive.to(matrix.device).bool()
        matrix, group_of_token = matrix[is_kept], group_of_token[is_kept.cpu().numpy()]
    n_groups = len(np.unique(group_of_token))
    if n_groups < 2:
        raise FactorizationError(
            f"rank: auto halves the documents, and {n_groups} found; expected at least 2: add "
            "documents or give the rank"
        )
    ranks = sorted(set(fit.rank_candidates or default_candidates(len(matrix))))
    halvings = [halved_documents(group_of_token, fit.seed + s) for s in range(fit.rank_seeds)]
    candidates, done, total = [], 0, 2 * len(ranks) * len(halvings)
    firsts: list[Tensor | None] = []
    for rank in ranks:
        fits: list[HalfFits] = []
        reason = None
        try:
            for s, half in enumerate(halvings):
                fits.append(fit_halves(matrix, half, fit, rank, fit.seed + 2 * s))
        except FactorizationError as error:
            fits, reason = [], str(error)
        done += 2 * len(halvings)
        if on_fit is not None:
            on_fit(done, total)
        firsts.append(fits[0].dictionaries[0] if fits else None)
        candidates.append(_candidate(rank, fits, reason, fit.match_threshold))
    candidates = [
        _with_next(candidate, firsts[i], firsts[i + 1] if i + 1 < len(firsts) else None)
        for i, candidate in enumerate(candidates)
    ]
    overfits = overfitting(candidates)
    distances = distances_of(candidates, overfits)
    eligible = [i for i, distance in enumerate(distances) if distance is not None]
    if not eligible:
        raise FactorizationError(
            "rank: auto: no candidate admits a fit: "
            + "; ".join(f"rank {c.rank}: {c.reason}" for c in candidates)
        )
    best = min(eligible, key=lambda i: (distances[i], i))
    return RankChoice(
        rank=candidates[best].rank,
        reason=_why([candidates[i] for i in eligible], candidates[best]),
        candidates=candidates,
        distances=distances,
        overfits=overfits,
        n_tokens=len(matrix),
        n_seeds=len(halvings),
        seed=fit.seed,
    )


def overfitting(candidates: Sequence[Candidate]) -> list[bool]:
    """Whether each candidate, in order of rank, explains unseen tokens worse than a smaller one."""
    overfits: list[bool] = []
    best_before = -math.inf
    for candidate in candidates:
        mean = candidate.held_out_mean
        margin = candidate.held_out_standard_error or 0.0
        overfits.append(mean is not None and mean + margin < best_before)
        best_before = max(best_before, -math.inf if mean is None else mean)
    return overfits


def distances_of(candidates: Sequence[Candidate], overfits: Sequence[bool]) -> list[float | None]:
    """|log2(k / r*)| of each candidate; None where it failed or overfits.

    Where nothing is reproduced at any rank, r* is taken as 1, so that the smallest rank is chosen.
    """
    counts = [
        None if is_over else candidate.n_reproduced
        for candidate, is_over in zip(candidates, overfits, strict=True)
    ]
    largest = max((count for count in counts if count is not None), default=0.0)
    return [
        None if count is None else abs(math.log2(candidate.rank / max(largest, 1.0)))
        for candidate, count in zip(candidates, counts, strict=True)
    ]


def _candidate(rank: int, fits: list[HalfFits], reason: str | None, threshold: float) -> Candidate:
    if not fits:
        return Candidate(rank, [], None, None, None, reason)
    stability = [match_features(*halves.dictionaries).cosine.mean() for halves in fits]
    n_reproduced = []
    for halves in fits:
        first, second = (
            distinct_rows(dictionary, energy, threshold)
            for dictionary, energy in zip(halves.dictionaries, halves.energies, strict=True)
        )
        n_reproduced.append((match_features(first, second).cosine >= threshold).sum())
    return Candidate(
        rank,
        [value for halves in fits for value in halves.held_out if value is not None],
        float(np.mean(stability)),
        float(np.mean(n_reproduced)),
        None,
    )


def _with_next(candidate: Candidate, own: Tensor | None, following: Tensor | None) -> Candidate:
    if own is None or following is None:
        return candidate
    cosine = float(match_features(own, following).cosine.mean())
    return Candidate(**{**vars(candidate), "match_next_rank": cosine})


def _why(eligible: Sequence[Candidate], chosen: Candidate) -> str:
    counts = {c.rank: c.n_reproduced or 0.0 for c in eligible}
    rank = max(counts, key=lambda rank: (counts[rank], -rank))
    if counts[rank] == 0:
        return "no feature was found in both halves of the documents: the smallest rank"
    others = [count for other, count in counts.items() if other != rank]
    reason = (
        f"nearest to the {counts[rank]:.1f} features found in both halves of the documents at rank "
        f"{rank} ({counts[chosen.rank]:.1f} at this one)"
    )
    if others and rank == max(counts) and counts[rank] > STILL_RISING * max(others):
        reason += "; that is the largest candidate, and a larger one may show more"
    return reason
