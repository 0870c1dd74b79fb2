"""Steering scores of a feature pooled over signs, target KLs and texts: one number, and which.

Each of the labels that texts are judged on (input, output by sign) is pooled by itself.

Texts are numbered, and text i has the same prompt and seed in every setting (sign and target KL)
and among the unsteered base texts. With s(c, i) the judge's score of text i in setting c, and C the
settings of one sign ("either": of both), the three poolings are

    best_kl            max over c in C of mean_i s(c, i), as in the paper. Optimistic: the best of
                       many settings is good by luck too, in controls as well
    best_kl_held_out   mean_i s(c(i), i), where c(i) is the best setting on the texts whose number
                       has the other parity than i: two-fold cross-validation of that choice
    mean_kl            mean over c in C and i of s(c, i)

A setting is chosen only if at least half of the texts that it is chosen on were judged: the best of
few texts is luck. The gain is the mean over the texts used of s(c, i) less the score of base text i
for the label that c is judged on; a text whose base text was not judged is left out of the gain.
Intervals are t intervals over text numbers of the gain within a text, since the settings of a text
and its base text share prompt and seed (assets/shared/small_sample_intervals.py). There is none for
one text or texts all alike, and none for best_kl: its setting is chosen on the very scores that it
averages, so that its gain is above 0 by luck, which no interval around it takes back. That of
best_kl_held_out holds the chosen settings fixed.
A text that was not judged is left out and counted, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from assets.shared.small_sample_intervals import ratio_of, t_interval
from assets.steering.feature_tables import STEERING_SUMMARIES
from assets.steering.judged_labels import judged_label
from assets.steering.tables import BASE_SIGN

POOLINGS = ("best_kl", "best_kl_held_out", "mean_kl")
EITHER = "either"
_MOST_REASONS = 3

_Setting = tuple[str, float]


@dataclass(frozen=True)
class _Settings:
    """One feature's scores in some settings, NaN where a text was not judged.

    `base` are the base texts' for the label of each setting; `labels` are these.
    """

    names: tuple[_Setting, ...]
    labels: tuple[str | None, ...]
    scores: Float[np.ndarray, "n_settings n_texts"]
    concept: Float[np.ndarray, "n_settings n_texts"]
    fluency: Float[np.ndarray, "n_settings n_texts"]
    base: Float[np.ndarray, "n_settings n_texts"]

    def of_sign(self, sign: str) -> _Settings:
        rows = [i for i, (own, _) in enumerate(self.names) if sign in (own, EITHER)]
        names, labels = (tuple(of[i] for i in rows) for of in (self.names, self.labels))
        parts = (self.scores, self.concept, self.fluency, self.base)
        return _Settings(names, labels, *(part[rows] for part in parts))  # pyright: ignore


@dataclass(frozen=True)
class _Pooled:
    """Which texts of which settings a pooling averages, and the settings that it chose."""

    is_used: np.ndarray
    chosen: tuple[_Setting, ...]


def steering_summaries(scores: pl.DataFrame, *, confidence: float) -> pl.DataFrame:
    """Rows of `steering_summaries` without partition columns.

    `scores` are the rows of `steering_scores` of one fit. Each feature gets a row for every judged
    label, every sign that it was steered with and "either", and every pooling.
    """
    rows: list[dict[str, Any]] = []
    for key, group in (
        scores.with_columns(judged=judged_label(pl.col("label_kind")))
        .sort("feature_id", "judged")
        .group_by("feature_id", "judged", maintain_order=True)
    ):
        named = dict(zip(("feature_id", "label_kind"), key, strict=True))
        rows += [named | row for row in _feature_rows(group, confidence)]
    schema = STEERING_SUMMARIES.empty().drop(STEERING_SUMMARIES.partition_by).schema
    return pl.DataFrame(rows, schema=schema, orient="row")


def _feature_rows(rows: pl.DataFrame, confidence: float) -> list[dict[str, Any]]:
    """Rows of one feature and judged label, without these."""
    steered = rows.filter(pl.col("sign") != BASE_SIGN)
    numbers = sorted(rows["text_index"].unique().to_list())
    every = _settings(steered, rows.filter(sign=BASE_SIGN), numbers)
    signs = [*sorted({sign for sign, _ in every.names}), EITHER]
    made = []
    for sign in signs:
        settings = every.of_sign(sign)
        asked = steered if sign == EITHER else steered.filter(sign=sign)
        coverage = {
            "n_judged": asked["score"].len() - asked["score"].null_count(),
            "n_expected": len(asked),
        }
        for pooling in POOLINGS:
            pooled = _pool(settings, np.array(numbers), pooling)
            row = {"sign": sign, "pooling": pooling, "label": _label(settings, pooled)}
            row |= coverage
            row |= _measured(settings, pooled, None if pooling == "best_kl" else confidence)
            compared = pooled.is_used & ~np.isnan(settings.base)
            notes = _notes(pooled, np.array(numbers), compared, pooling)
            made.append(row | _status(row, asked, pooling, notes))
    return made


def _settings(rows: pl.DataFrame, base: pl.DataFrame, numbers: Sequence[int]) -> _Settings:
    """Scores of steered texts, and of base texts for the same labels."""
    kinds: dict[_Setting, str | None] = {}
    labels: dict[str | None, str | None] = {}
    for sign, target, kind, label in rows.select(
        "sign", "target_kl_nats", "label_kind", "label"
    ).iter_rows():
        kinds[sign, target], labels[kind] = kind, label
    names = tuple(sorted(kinds))
    place = {name: i for i, name in enumerate(names)}
    column = {number: i for i, number in enumerate(numbers)}
    scores, concept, fluency, of_base = np.full((4, len(names), len(numbers)), np.nan)
    for row in rows.drop_nulls("score").iter_rows(named=True):
        where = place[row["sign"], row["target_kl_nats"]], column[row["text_index"]]
        scores[where] = row["score"]
        concept[where], fluency[where] = row["concept_rating"], row["fluency_rating"]
    for row in base.drop_nulls("score").iter_rows(named=True):
        same_label = [i for i, name in enumerate(names) if kinds[name] == row["label_kind"]]
        of_base[same_label, column[row["text_index"]]] = row["score"]
    of_names = tuple(labels[kinds[name]] for name in names)
    return _Settings(names, of_names, scores, concept, fluency, of_base)


def _label(settings: _Settings, pooled: _Pooled) -> str | None:
    """The label that the pooled settings, or else all of them, have in common."""
    of_name = dict(zip(settings.names, settings.labels, strict=True))
    found = {of_name[name] for name in pooled.chosen or settings.names}
    return found.pop() if len(found) == 1 else None


def _best(settings: _Settings, columns: np.ndarray) -> int | None:
    """The setting of the largest mean over some texts; the first (weakest) of equal ones.

    None where of no setting half of these texts or more were judged.
    """
    part = settings.scores[:, columns]
    n_judged = (~np.isnan(part)).sum(axis=1)
    eligible = np.flatnonzero((n_judged > 0) & (2 * n_judged >= part.shape[1])).tolist()
    means = np.nansum(part, axis=1) / np.maximum(n_judged, 1)
    return min(eligible, key=lambda i: (-means[i], settings.names[i][::-1]), default=None)


def _pool(settings: _Settings, numbers: Int[np.ndarray, " n_texts"], pooling: str) -> _Pooled:
    is_used = np.zeros(settings.scores.shape, dtype=bool)
    chosen: list[int] = []
    if pooling == "mean_kl":
        is_used[:] = True
        chosen = list(range(len(settings.names)))
    elif pooling == "best_kl":
        if (best := _best(settings, np.ones(len(numbers), dtype=bool))) is not None:
            is_used[best] = True
            chosen = [best]
    else:
        for parity in (0, 1):
            if (best := _best(settings, numbers % 2 != parity)) is not None:
                is_used[best] |= numbers % 2 == parity
                chosen.append(best)
    is_used &= ~np.isnan(settings.scores)
    return _Pooled(is_used, tuple(settings.names[i] for i in chosen if is_used[i].any()))


def _measured(settings: _Settings, pooled: _Pooled, confidence: float | None) -> dict[str, Any]:
    """The pooled numbers; the gain has no interval where `confidence` is None."""
    n_texts = int(pooled.is_used.sum())
    row: dict[str, Any] = {"n_texts": n_texts}
    if not n_texts:
        return row

    def mean(values: np.ndarray) -> float:
        return float(values[pooled.is_used].mean())

    targets = {target for _, target in pooled.chosen}
    signs = {sign for sign, _ in pooled.chosen}
    row |= {
        "score": mean(settings.scores),
        "concept_mean": mean(settings.concept),
        "fluency_mean": mean(settings.fluency),
        "target_kl_nats": targets.pop() if len(targets) == 1 else None,
        "chosen_sign": signs.pop() if len(signs) == 1 else None,
    }
    compared = pooled.is_used & ~np.isnan(settings.base)
    if not compared.any():
        return row
    gains = settings.scores - settings.base
    row["base_score"] = float(settings.base[compared].mean())
    row["gain"] = float(gains[compared].mean())
    if confidence is not None:
        of_text, n_of_text = np.where(compared, gains, 0.0).sum(axis=0), compared.sum(axis=0)
        has_any = n_of_text > 0
        gain = ratio_of(of_text[has_any], n_of_text[has_any].astype(float))
        low, high = t_interval(gain, confidence) or (None, None)
        row |= {"gain_low": low, "gain_high": high}
    return row


def _notes(
    pooled: _Pooled,
    numbers: Int[np.ndarray, " n_texts"],
    compared: Bool[np.ndarray, "n_settings n_texts"],
    pooling: str,
) -> list[str]:
    """What a score or its gain leaves out, beside texts that were not judged."""
    notes = []
    parities = set((numbers[pooled.is_used.any(axis=0)] % 2).tolist())
    if pooling == "best_kl_held_out" and len(parities) == 1:
        notes.append(f"measured on {('even', 'odd')[parities.pop()]} text_index only")
    n_texts, n_compared = int(pooled.is_used.sum()), int(compared.sum())
    if not n_compared:
        notes.append("no base text was judged, so there is no gain")
    elif n_compared < n_texts:
        notes.append(f"the gain is over {n_compared} of {n_texts} texts: others have no base score")
    return notes


def _status(
    row: Mapping[str, Any], asked: pl.DataFrame, pooling: str, notes: Sequence[str]
) -> dict[str, Any]:
    n_judged, n_expected = row["n_judged"], row["n_expected"]
    why = _reasons(asked)
    if row.get("score") is None:
        reason = why or "no texts"
        if n_judged:
            # The held-out best needs a half to choose on and texts of the other to measure.
            half = " of one parity" if pooling == "best_kl_held_out" else ""
            reason = f"no setting with at least half of its texts{half} judged"
            reason += " and texts of the other" if half else ""
            reason += f": {why}" if why else ""
        return {"status": "none", "reason": reason}
    missing = f"{n_expected - n_judged} of {n_expected} texts not judged: {why}"
    said = [*([missing] if n_judged < n_expected else []), *notes]
    return {"status": "partial" if said else "ok", "reason": "; ".join(said) or None}


def _reasons(asked: pl.DataFrame) -> str:
    """The most frequent reasons for texts without a score."""
    counts = (
        asked.filter(pl.col("score").is_null())
        .group_by("reason")
        .len()
        .sort("len", "reason", descending=[True, False])
    )
    return "; ".join(str(reason) for reason in counts["reason"].head(_MOST_REASONS))
