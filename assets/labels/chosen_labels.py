"""Which label stands for a feature where a stage needs just one: to write sentences for, say.

The input-centric label, as in the paper's concept detection (Shafran, Geiger and Geva 2025, arXiv
2506.10920); where a study asks for none, the first of output and combined in its labels.kinds. That
is one kind for all features of a study: means over them are of the same question. No kind stands in
for one that is missing: a feature whose label is `none` or failed has none here. What subtracting a
feature promotes (output_minus) and the token summary are never it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

PREFERRED = "input"
OTHERS = ("output", "combined")


@dataclass(frozen=True)
class ChosenLabel:
    """A feature's label and its kind, or None and why there is none.

    `kind` is None where the study asks for no label that can stand for a feature. `is_failed`:
    there may be a label when the LLM answers.
    """

    label: str | None
    kind: str | None
    reason: str | None = None
    is_failed: bool = False


def chosen_kind(kinds: Sequence[str]) -> str | None:
    """Of the kinds that a study asks for (labels.kinds), the one that stands for its features."""
    if PREFERRED in kinds:
        return PREFERRED
    return next((kind for kind in kinds if kind in OTHERS), None)


def chosen_labels(labels: pl.DataFrame, kind: str | None) -> dict[int, ChosenLabel]:
    """For each feature of `labels` (rows of the table, one fit) its label of `kind`."""
    ids = labels["feature_id"].unique(maintain_order=True).to_list()
    if kind is None:
        reason = f"no label: labels.kinds asks for none of {', '.join((PREFERRED, *OTHERS))}"
        return {feature_id: ChosenLabel(None, None, reason) for feature_id in ids}
    missing = ChosenLabel(None, kind, f"no {kind} label: the table labels has no row of it")
    of_kind = labels.filter(pl.col("kind") == kind).to_dicts()
    found = {row["feature_id"]: _label_of(row) for row in of_kind}
    return {feature_id: found.get(feature_id, missing) for feature_id in ids}


def _label_of(row: Mapping[str, Any]) -> ChosenLabel:
    kind, status = row["kind"], row["status"]
    if status == "ok":
        return ChosenLabel(row["label"], kind)
    reason = f"no {kind} label: {status}, {row['reason']}"
    return ChosenLabel(None, kind, reason, is_failed=status == "failed")
