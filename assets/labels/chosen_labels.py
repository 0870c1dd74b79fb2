"""Which label stands for a feature where a stage needs one: to write sentences for, say.

The LLM's input-centric label, else its output-centric one, else the combined one; where the LLM was
asked and saw no theme in any, the token summary. A label that failed ends the search: the feature
has none until it is mended, as another kind in its place would change what is measured. What
subtracting a feature promotes (output_minus) never stands for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

LLM_KINDS = ("input", "output", "combined")


@dataclass(frozen=True)
class ChosenLabel:
    """A feature's label and its kind, or None and why there is none.

    `is_failed`: there may be one when the LLM answers.
    """

    label: str | None
    kind: str | None
    reason: str | None = None
    is_failed: bool = False


def chosen_labels(labels: pl.DataFrame) -> dict[int, ChosenLabel]:
    """For each feature of `labels` (rows of the table, one fit) the label that stands for it."""
    chosen: dict[int, ChosenLabel] = {}
    for (feature_id,), rows in labels.group_by("feature_id", maintain_order=True):
        by_kind = {row["kind"]: row for row in rows.to_dicts()}
        chosen[int(feature_id)] = _choose(by_kind)  # pyright: ignore[reportArgumentType]
    return chosen


def _choose(by_kind: dict[str, dict]) -> ChosenLabel:
    for row in (by_kind[kind] for kind in LLM_KINDS if kind in by_kind):
        if row["status"] == "ok":
            return ChosenLabel(row["label"], row["kind"])
        if row["status"] != "none":
            reason = f"no {row['kind']} label: {row['status']}, {row['reason']}"
            return ChosenLabel(None, None, reason, is_failed=row["status"] == "failed")
    summary = by_kind.get("token_summary")
    if summary is not None and summary["status"] == "ok":
        return ChosenLabel(summary["label"], "token_summary")
    return ChosenLabel(None, None, "no label: the feature has no evidence")
