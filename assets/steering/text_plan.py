"""Which texts are written: from calibrations to rows to generate, and back to table rows.

Text i of every feature continues neutral prompt i (in turn) with seed + i, so that texts differ by
the steering alone. Targets that were not reached keep their rows, as not_reached with the
calibration's reason. Base texts (sign "0", target 0, strength 0) are written once and repeated for
each feature: its judge scores on them say how much of its label the model writes unsteered.

A text is known by its fingerprint: a hash of direction, strength, prompt, seed, sampling settings,
site and model. What was written before under the same fingerprint is taken over; what several rows
share is written once. generation.py makes texts independent of their batch mates, so a text taken
over is the one that would be written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import polars as pl
from jaxtyping import Float
from torch import Tensor

from assets.shared.row_reuse import reusable_rows, row_fingerprint
from assets.steering.calibration import SIGN_FACTORS
from assets.steering.generation import SamplingSettings, SteeredRow
from assets.steering.tables import BASE_SIGN, EMPTY, NOT_REACHED, STEERED_TEXTS

BASE_TARGET = 0.0


@dataclass(frozen=True)
class TextPlan:
    """Table rows still without text, the texts known already, and those to generate.

    `kept` has texts by the fingerprint of their rows ("" where the model ended one at once);
    `to_generate` belongs to `fingerprints`, one to one.
    """

    table_rows: list[dict[str, Any]]
    kept: dict[str, str]
    fingerprints: list[str]
    to_generate: list[SteeredRow]

    @property
    def rows_reused(self) -> int:
        return sum(row["row_fingerprint"] in self.kept for row in self.table_rows)

    @property
    def rows_computed(self) -> int:
        return len(self.table_rows) - self.rows_reused - self._rows_not_reached

    @property
    def _rows_not_reached(self) -> int:
        return sum(row["row_fingerprint"] is None for row in self.table_rows)


@dataclass(frozen=True, eq=False)
class _Case:
    """One feature, sign and target: its direction (None: base text), or why it has no texts."""

    feature_id: int
    sign: str
    target_kl_nats: float
    strength: float | None
    direction: Tensor | None = None
    reason: str | None = None

    @property
    def vector(self) -> Tensor | None:
        """What is added at the site."""
        if self.direction is None or self.strength is None:
            return None
        return self.direction * (SIGN_FACTORS[self.sign] * self.strength)


def plan_texts(
    calibrations: pl.DataFrame,
    directions: Mapping[int, Float[Tensor, " d"]],
    *,
    prompts: Sequence[str],
    prompt_ids: Sequence[Sequence[int]],
    n_texts: int,
    seed: int,
    settings: SamplingSettings,
    with_base: bool = True,
    made_by: Sequence[str] = (),
    previous: pl.DataFrame | None = None,
) -> TextPlan:
    """Plan `n_texts` texts for each row of `calibrations`, and base texts for each feature.

    `directions` maps feature ids to unit directions; `prompt_ids` are the tokens of `prompts`.
    `made_by` is what else decides a text (code version, model revision, dtype, site); `previous`
    are rows of the table from before.
    """
    if len(prompts) != len(prompt_ids) or not prompts:
        raise ValueError(
            f"{len(prompts)} prompts but {len(prompt_ids)} tokenized; expected as many, and one"
            " at least"
        )
    common = (*made_by, *astuple(settings))
    table_rows: list[dict[str, Any]] = []
    asked: dict[str, SteeredRow] = {}
    for case in _cases(calibrations, directions, with_base):
        base = None if case.direction is None else case.direction.detach().float().cpu().numpy()
        for index in range(n_texts):
            which = index % len(prompts)
            made_from = None
            if case.reason is None:
                prompt_key = repr(list(prompt_ids[which]))
                made_from = row_fingerprint(
                    *common, base, case.sign, case.strength, prompt_key, seed + index
                )
                asked.setdefault(
                    made_from,
                    SteeredRow(
                        feature_id=case.feature_id,
                        sign=case.sign,
                        target_kl_nats=case.target_kl_nats,
                        text_index=index,
                        prompt_ids=tuple(prompt_ids[which]),
                        vector=case.vector,
                        seed=seed + index,
                    ),
                )
            table_rows.append(
                {
                    "feature_id": case.feature_id,
                    "sign": case.sign,
                    "target_kl_nats": case.target_kl_nats,
                    "text_index": index,
                    "strength": case.strength,
                    "prompt": prompts[which],
                    "seed": seed + index,
                    "row_fingerprint": made_from,
                    "reason": case.reason,
                }
            )
    found = reusable_rows(STEERED_TEXTS.empty() if previous is None else previous, asked)
    kept = {made_from: rows["text"][0] or "" for made_from, rows in found.items()}
    missing = [made_from for made_from in asked if made_from not in kept]
    return TextPlan(table_rows, kept, missing, [asked[made_from] for made_from in missing])


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
        yield replace(case, direction=directions[row["feature_id"]])


def texts_frame(plan: TextPlan, texts: Sequence[str]) -> pl.DataFrame:
    """Rows of `steered_texts` without partition columns; `texts` answer `plan.to_generate`."""
    if len(texts) != len(plan.to_generate):
        raise ValueError(f"{len(texts)} texts for {len(plan.to_generate)} planned; expected each")
    known = plan.kept | dict(zip(plan.fingerprints, texts, strict=True))
    rows = []
    for row in plan.table_rows:
        if row["row_fingerprint"] is None:
            rows.append(row | {"text": None, "status": NOT_REACHED})
        elif not known[row["row_fingerprint"]].strip():
            reason = "the model ended the text before its first word"
            rows.append(row | {"text": None, "status": EMPTY, "reason": reason})
        else:
            rows.append(row | {"text": known[row["row_fingerprint"]], "status": "ok"})
    return pl.DataFrame(rows, schema=STEERED_TEXTS.empty().drop(STEERED_TEXTS.partition_by).schema)
