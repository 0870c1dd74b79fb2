"""Rows of `ablation_effects` from the runs: means over tokens, with intervals over documents.

A mean is pooled over documents, Σ sums / Σ counts. Off target are all tokens but the strong; in
documents of the concept and of others every token counts, so that the two differ by the documents
alone, and by nothing that the coefficients say. Intervals are t intervals with documents as units,
since the tokens of one are alike (assets/shared/small_sample_intervals.py): there is none for one
document, or for documents all alike. Self-repair is a share of the direct effect, and has no
interval where that of the direct effect itself holds 0.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from jaxtyping import Float

from assets.ablation.config import AblationConfig
from assets.ablation.plan import set_to
from assets.ablation.tables import ABLATION_EFFECTS
from assets.ablation.targets import Targets
from assets.shared.small_sample_intervals import (
    CONFIDENCE,
    Estimate,
    difference_of,
    holds_zero,
    ratio_of,
    t_interval,
)


def effects_frame(
    runs: pl.DataFrame,
    feature_ids: Sequence[int],
    targets: Mapping[int, Targets],
    fires: Collection[int],
    config: AblationConfig,
    beyond: str,
    concept_of: Mapping[int, str] | None = None,
) -> pl.DataFrame:
    """Rows of `ablation_effects`, without site and fit, for each of `feature_ids`.

    `runs` are rows of `ablation_runs`; `targets` has the features that are measured, `fires` those
    that have a coefficient at all; `beyond` is why one of these is not measured; `concept_of` has
    those with a concept.
    """
    concept_of = concept_of or {}
    by_key = runs.partition_by("feature_id", "ablation", "is_null", as_dict=True)
    rows = []
    for feature_id in feature_ids:
        for ablation in config.ablations:
            for is_null in (False, True):
                row: dict[str, object] = {
                    "feature_id": feature_id,
                    "ablation": ablation,
                    "is_null": is_null,
                    **dict.fromkeys((*_COUNTS, *_CONCEPT_COUNTS), 0),
                    "concept": concept_of.get(feature_id),
                    "seed": config.seed,
                }
                of_key = by_key.get((feature_id, ablation, is_null))
                if of_key is not None:
                    row |= {"set_to": set_to(ablation, targets[feature_id]), "status": "ok"}
                    row |= _measured(of_key, config)
                elif feature_id in targets or feature_id not in fires:
                    row |= {"status": "inactive", "reason": config.least_strong_reason}
                else:
                    row |= {"status": "not_measured", "reason": beyond}
                rows.append(row)
    schema = {
        c.name: c.polars_type
        for c in ABLATION_EFFECTS.columns
        if c.name not in ABLATION_EFFECTS.partition_by
    }
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema)


_COUNTS = ("n_documents_on", "n_documents_off", "n_tokens_on", "n_tokens_near", "n_tokens_off")
_CONCEPT_COUNTS = tuple(
    f"n_{what}_{side}" for side in ("concept", "other") for what in ("documents", "tokens")
)


@dataclass
class _Row:
    """The values of one row, and why some of them are NULL."""

    values: dict[str, object] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    def put(self, name: str, found: Estimate, where: str) -> None:
        """A value with its interval, or why it has none; `where` says of which documents."""
        self.values[name] = found.value
        interval = t_interval(found, CONFIDENCE)
        if interval is None:
            why = "one document" if np.isnan(found.variance) else "no spread between documents"
            self.reasons.append(f"no interval of {name}: {why}{where}")
            return
        self.values |= dict(zip((f"{name}_low", f"{name}_high"), interval, strict=True))


def _measured(runs: pl.DataFrame, config: AblationConfig) -> dict[str, object]:
    """Counts, means and intervals of one feature's, or null's, runs."""
    runs = runs.sort("document_id")
    off = runs.filter("is_off").with_columns(
        n_tokens=pl.col("n_tokens") - pl.col("n_tokens_strong"),
        delta=pl.col("delta") - pl.col("delta_strong"),
        # Of one sum the other is a part, to rounding.
        kl=(pl.col("kl") - pl.col("kl_strong")).clip(0.0),
    )
    on = runs.filter("is_on")
    row = _Row()
    n_on, n_near = int(on["n_tokens_strong"].sum()), int(on["n_tokens_silent"].sum())
    n_off = int(off["n_tokens"].sum())
    row.values |= dict(zip(_COUNTS, (len(on), len(off), n_on, n_near, n_off), strict=True))
    row.values["kl_on"] = _total(on, "kl_strong") / n_on
    if n_near:
        row.values["delta_near"] = _total(on, "delta_silent") / n_near
        row.values["kl_near"] = _total(on, "kl_silent") / n_near
    else:
        row.reasons.append("no near: it fires at every token of its documents")
    strong = _numbers(on, "n_tokens_strong")
    of_on = ratio_of(_numbers(on, "delta_strong"), strong)
    row.put("delta_on", of_on, " on target")
    if on["promoted_drop"].null_count():
        row.reasons.append("no promoted_drop: no vocabulary projection")
    else:
        row.put("promoted_drop", ratio_of(_numbers(on, "promoted_drop"), strong), " on target")
    if n_off:
        of_off = ratio_of(_numbers(off, "delta"), _numbers(off, "n_tokens"))
        row.put("delta_off", of_off, " off target")
        _, in_on, in_off = np.intersect1d(on["document_id"], off["document_id"], True, True)
        difference = difference_of(of_on, of_off, shared=(in_on, in_off))
        row.put("selectivity", difference, " on or off target")
        row.values["kl_off"] = _total(off, "kl") / n_off
    else:
        row.reasons.append(
            "no delta_off, selectivity, kl_off: every token of the documents drawn is strong"
        )
    _put_concept(row, runs)
    _put_self_repair(row, on, n_on, config)
    return row.values | {"reason": "; ".join(row.reasons) or None}


def _put_concept(row: _Row, runs: pl.DataFrame) -> None:
    """Both sides over every token of their documents, and the difference where there are both."""
    sides = (("concept", "is_of_concept"), ("other", "is_of_others"))
    found = []
    for side, drawn_as in sides:
        of_side = runs.filter(pl.col(drawn_as).fill_null(False))
        n_tokens = int(of_side["n_tokens"].sum())
        row.values |= {f"n_documents_{side}": len(of_side), f"n_tokens_{side}": n_tokens}
        if not n_tokens:
            what = "a concept" if side == "concept" else "other concepts"
            row.reasons.append(f"no delta_{side}, concept_selectivity: no documents of {what}")
            continue
        found.append(ratio_of(_numbers(of_side, "delta"), _numbers(of_side, "n_tokens")))
        row.put(f"delta_{side}", found[-1], "")
        row.values[f"kl_{side}"] = _total(of_side, "kl") / n_tokens
    if len(found) == len(sides):
        row.put("concept_selectivity", difference_of(*found), " on a side")


def _put_self_repair(row: _Row, on: pl.DataFrame, n_on: int, config: AblationConfig) -> None:
    for name in ("direct_effect", "total_effect", "total_effect_own_norm"):
        row.values[name] = _total(on, name) / n_on
    direct, total = _numbers(on, "direct_effect"), _numbers(on, "total_effect")
    if not abs(direct.sum()) / n_on >= config.min_direct_effect:
        row.reasons.append(
            f"no self_repair: the direct effect is {direct.sum() / n_on:.2g} logits, below "
            f"ablation.min_direct_effect={config.min_direct_effect:g}"
        )
        return
    if holds_zero(direct, CONFIDENCE):
        row.values["self_repair"] = float((direct - total).sum() / direct.sum())
        row.reasons.append("no interval of self_repair: that of the direct effect holds 0")
        return
    # 1 − total / direct, as one ratio.
    row.put("self_repair", ratio_of(direct - total, direct), " on target")


def _numbers(runs: pl.DataFrame, name: str) -> Float[np.ndarray, " n_documents"]:
    return runs[name].cast(pl.Float64).to_numpy()


def _total(runs: pl.DataFrame, name: str) -> float:
    return float(_numbers(runs, name).sum())
