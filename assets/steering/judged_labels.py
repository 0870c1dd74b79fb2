"""Which label of a feature its steered texts are judged on: by kind, and of the output by sign.

As in the code of Shafran, Geiger and Geva 2025 (arXiv 2506.10920), a text can be scored against
what the feature fires on (`input`) and against what it promotes (`output`). The latter goes by
sign: a text that the feature was added to is judged on the theme of the tokens that the feature
promotes (label `output`), one that it was subtracted from on that of the tokens which this promotes
(`output_minus`). Base texts are judged on each label that steered ones are, so that a gain is over
the same label.

Input and output ask two questions, so no kind stands in for one that is missing. Judge-free scores
(judge_free.py) are of the same labels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from assets.steering.tables import BASE_SIGN

OUTPUT_OF_SIGN = {"+": "output", "-": "output_minus"}
JUDGED_KINDS = ("input", *OUTPUT_OF_SIGN.values())


@dataclass(frozen=True)
class ConceptLabel:
    """The label that texts are judged on and its kind, or None and why there is none."""

    label: str | None
    kind: str
    reason: str | None = None


Labels = Mapping[tuple[int, str], ConceptLabel]
"""(feature, kind of label) → that label."""


def labels_to_judge(labels: pl.DataFrame) -> dict[tuple[int, str], ConceptLabel]:
    """Each feature's labels of JUDGED_KINDS; `labels` are rows of the table of one fit."""
    rows = labels.filter(pl.col("kind").is_in(JUDGED_KINDS)).to_dicts()
    return {(row["feature_id"], row["kind"]): _label_of(row) for row in rows}


def label_of(labels: Labels, feature_id: int, kind: str) -> ConceptLabel:
    """A feature's label of a kind, which may not have been asked for."""
    missing = ConceptLabel(None, kind, f"no {kind} label: the study's labels.kinds has no {kind}")
    return labels.get((feature_id, kind), missing)


def kinds_by_sign(judged: Sequence[str], signs: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Sign, BASE_SIGN among them → the kinds of label that its texts are judged on.

    `judged` are input, output or both (steering.judged_labels); `signs` those steered with.
    """
    found = {sign: tuple(_kind(one, sign) for one in judged) for sign in sorted(signs)}
    of_base = dict.fromkeys(_kind(one, sign) for one in judged for sign in found)
    return found | {BASE_SIGN: tuple(of_base)}


def judged_label(kind: pl.Expr) -> pl.Expr:
    """input or output: which of steering.judged_labels a kind of label belongs to."""
    is_output = kind.is_in(list(OUTPUT_OF_SIGN.values()))
    return pl.when(is_output).then(pl.lit("output")).otherwise(kind)


def judged_label_of(kind: str | None) -> str | None:
    """The same of one kind; None of None."""
    return "output" if kind in OUTPUT_OF_SIGN.values() else kind


def _kind(judged: str, sign: str) -> str:
    return OUTPUT_OF_SIGN[sign] if judged == "output" else judged


def _label_of(row: Mapping[str, str]) -> ConceptLabel:
    kind = row["kind"]
    if row["status"] == "ok":
        return ConceptLabel(row["label"], kind)
    return ConceptLabel(None, kind, f"no {kind} label: {row['status']}, {row['reason']}")
