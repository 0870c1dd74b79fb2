"""Which texts are written: from calibrations to rows to generate, and back to table rows.

Text i of every feature continues neutral prompt i (in turn) with seed + i, so that texts differ by
the steering alone. Targets that were not reached keep their rows, as not_attempted with the
calibration's reason. Base texts (sign "0", target 0, strength 0) are written once and repeated for
each feature: its judge scores on them say how much of its label the model writes unsteered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
from jaxtyping import Float
from torch import Tensor

from assets.steering.calibration import SIGN_FACTORS
from assets.steering.generation import SteeredRow
from assets.steering.tables import STEERED_TEXTS

BASE_SIGN = "0"
BASE_TARGET = 0.0


@dataclass(frozen=True)
class TextPlan:
    """Table rows still without text, and the texts to generate; `sources[i]` is row i's text."""

    table_rows: list[dict[str, Any]]
    to_generate: list[SteeredRow]
    sources: list[int | None]


@dataclass(frozen=True, eq=False)
class _Case:
    """One feature, sign and target: its vector (None: base text), or why it has no texts."""

    feature_id: int
    sign: str
    target_kl_nats: float
    strength: float | None
    vector: Tensor | None = None
    reason: str | None = None


def plan_texts(
    calibrations: pl.DataFrame,
    directions: Mapping[int, Float[Tensor, " d"]],
    *,
    prompts: Sequence[str],
    prompt_ids: Sequence[Sequence[int]],
    n_texts: int,
    seed: int,
    with_base: bool = True,
) -> TextPlan:
    """Plan `n_texts` texts for each row of `calibrations`, and base texts for each feature.

    `directions` maps feature ids to unit directions; `prompt_ids` are the tokens of `prompts`.
    """
    if len(prompts) != len(prompt_ids) or not prompts:
        raise ValueError(
            f"{len(prompts)} prompts but {len(prompt_ids)} tokenized; expected as many, and one"
            " at least"
        )
    plan = TextPlan([], [], [])
    base_source: dict[int, int] = {}
    for case in _cases(calibrations, directions, with_base):
        for index in range(n_texts):
            which = index % len(prompts)
            plan.table_rows.append(
                {
                    "feature_id": case.feature_id,
                    "sign": case.sign,
                    "target_kl_nats": case.target_kl_nats,
                    "text_index": index,
                    "strength": case.strength,
                    "prompt": prompts[which],
                    "seed": seed + index,
                    "reason": case.reason,
                }
            )
            is_base = case.vector is None
            if case.reason is not None:
                plan.sources.append(None)
                continue
            if is_base and index in base_source:
                plan.sources.append(base_source[index])
                continue
            if is_base:
                base_source[index] = len(plan.to_generate)
            plan.sources.append(len(plan.to_generate))
            plan.to_generate.append(
                SteeredRow(
                    feature_id=case.feature_id,
                    sign=case.sign,
                    target_kl_nats=case.target_kl_nats,
                    text_index=index,
                    prompt_ids=tuple(prompt_ids[which]),
                    vector=case.vector,
                    seed=seed + index,
                )
            )
    return plan


def _cases(
    calibrations: pl.DataFrame, directions: Mapping[int, Tensor], with_base: bool
) -> Iterator[_Case]:
    if with_base:
        for feature_id in calibrations["feature_id"].unique(maintain_order=True).to_list():
            yield _Case(feature_id, BASE_SIGN, BASE_TARGET, 0.0)
    for row in calibrations.iter_rows(named=True):
        case = _Case(row["feature_id"], row["sign"], row["target_kl_nats"], row["strength"])
        if row["status"] != "ok":
            reason = f"calibration {row['status']}: {row['reason']}"
            yield replace(case, reason=reason)
            continue
        scale = SIGN_FACTORS[row["sign"]] * row["strength"]
        yield replace(case, vector=directions[row["feature_id"]] * scale)


def texts_frame(plan: TextPlan, texts: Sequence[str]) -> pl.DataFrame:
    """Rows of `steered_texts` without partition columns; `texts` answer `plan.to_generate`."""
    if len(texts) != len(plan.to_generate):
        raise ValueError(f"{len(texts)} texts for {len(plan.to_generate)} planned; expected each")
    rows = []
    for row, source in zip(plan.table_rows, plan.sources, strict=True):
        if source is None:
            rows.append(row | {"text": None, "status": "not_attempted"})
        elif not texts[source].strip():
            reason = "the model ended the text before its first word"
            rows.append(row | {"text": None, "status": "failed", "reason": reason})
        else:
            rows.append(row | {"text": texts[source], "status": "ok"})
    schema = {
        c.name: c.polars_type
        for c in STEERED_TEXTS.columns
        if c.name not in STEERED_TEXTS.partition_by
    }
    return pl.DataFrame(rows, schema=schema, orient="row")
