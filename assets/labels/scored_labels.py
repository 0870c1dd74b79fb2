"""Which labels are scored: those of `labels.score_kinds`, and another feature's in their place.

A score means something beside what the shuffled labels (other_labels.py) get on the same contexts.
Which contexts these are is asked_texts.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from assets.labels.config import LabelsConfig
from assets.labels.other_labels import shuffled_labels


@dataclass(frozen=True)
class ScoredLabel:
    """A label and the feature whose contexts it is judged on; another's where `is_shuffled`."""

    feature_id: int
    kind: str
    label: str
    is_shuffled: bool = False


def scored_labels(labels: pl.DataFrame, config: LabelsConfig) -> list[ScoredLabel]:
    """Every label with status ok of `config.score_kinds`, and the shuffled ones of each kind."""
    found: list[ScoredLabel] = []
    for kind in config.score_kinds:
        own = labels_of_kind(labels, kind)
        found += [ScoredLabel(i, kind, label) for i, label in own.items() if label is not None]
        shuffled = shuffled_labels(own, config.n_shuffled, seed=config.seed)
        found += [ScoredLabel(i, kind, shuffled[i], True) for i in own if i in shuffled]
    return found


def labels_of_kind(labels: pl.DataFrame, kind: str) -> dict[int, str | None]:
    """Label by feature; None where it failed."""
    found = labels.filter(pl.col("kind") == kind, pl.col("status").is_in(["ok", "failed"]))
    return dict(found.select("feature_id", "label").iter_rows())
