"""Scores of probe sentences: of new ones by the model, of others from the last materialization.

A score comes from the sentence, the feature's direction, the model and its site, and from which
tokens are left out as massive. The threshold for that follows the corpus's median row norm, which
every new document moves a little; so a row keeps the norms nearest to it on both sides, and serves
as long as the threshold stays between them. Rows are found again as in shared/row_reuse.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float
from torch import Tensor

from assets.detection.probe_sentences import PROBE_SCHEMA
from assets.detection.site_scores import SentenceScores
from assets.shared.row_reuse import reusable_rows, row_fingerprint

NO_SCORE = "no score: the sentence has no usable token or the feature is zero"
_SCORE_COLUMNS = ("score", "largest_norm", "smallest_massive_norm")


@dataclass(frozen=True)
class ScoredProbes:
    """Rows of `probe_sentences` with scores: taken over or made anew, and the tokens run for it."""

    rows: pl.DataFrame
    rows_reused: int
    rows_computed: int
    forward_tokens: int


def score_probes(
    probe_sentences: pl.DataFrame,
    previous: pl.DataFrame,
    dictionary: Float[Tensor, "k d"],
    feature_ids: Sequence[int],
    score: Callable[[list[str]], SentenceScores],
    *,
    made_with: Sequence[str | int],
    massive_norm: float,
) -> ScoredProbes:
    """The rows with each feature's own score on each sentence filled in; without one a row fails.

    `previous` are the partition's rows as they are. `score(sentences)` runs the model, with
    `massive_norm`; it is called once, with every sentence that a row lacks a score on, or not at
    all. `made_with` says what else decides: code version, model revision, number type, site, most
    tokens.
    """
    column_of = {feature_id: column for column, feature_id in enumerate(feature_ids)}
    directions = dictionary.detach().float().cpu().numpy()
    wanted = [
        None if text is None else row_fingerprint(*made_with, text, directions[column_of[feature]])
        for feature, text in probe_sentences.select("feature_id", "sentence").iter_rows()
    ]
    found = reusable_rows(previous, [one for one in wanted if one is not None])
    firsts = {fingerprint: rows.row(0, named=True) for fingerprint, rows in found.items()}
    kept = {one: row for one, row in firsts.items() if _leaves_out_the_same(row, massive_norm)}
    missing = [one is not None and one not in kept for one in wanted]
    sentences = probe_sentences["sentence"].filter(pl.Series(missing, dtype=pl.Boolean))
    sentences = sentences.unique(maintain_order=True).to_list()
    scored = score(sentences) if sentences else None

    number_of = {sentence: number for number, sentence in enumerate(sentences)}
    rows: list[dict[str, Any]] = []
    for row, fingerprint in zip(probe_sentences.iter_rows(named=True), wanted, strict=True):
        row["row_fingerprint"] = fingerprint
        if fingerprint in kept:
            row |= {name: kept[fingerprint][name] for name in _SCORE_COLUMNS}
        elif fingerprint is not None and scored is not None:
            row |= _scores(scored, number_of[row["sentence"]], column_of[row["feature_id"]])
        rows.append(row)
    return ScoredProbes(
        pl.DataFrame(rows, schema=PROBE_SCHEMA),
        sum(one in kept for one in wanted),
        sum(missing),
        0 if scored is None else scored.n_tokens,
    )


def _leaves_out_the_same(row: Mapping[str, Any], massive_norm: float) -> bool:
    counted, massive = row["largest_norm"], row["smallest_massive_norm"]
    if counted is None:
        return False
    return counted <= massive_norm < (math.inf if massive is None else massive)


def _scores(scored: SentenceScores, sentence: int, column: int) -> dict[str, Any]:
    values = (
        scored.scores[sentence, column],
        scored.largest_norm[sentence],
        scored.smallest_massive_norm[sentence],
    )
    row: dict[str, Any] = {
        name: float(value) if np.isfinite(value) else None
        for name, value in zip(_SCORE_COLUMNS, values, strict=True)
    }
    return row if row["score"] is not None else row | {"status": "failed", "reason": NO_SCORE}
