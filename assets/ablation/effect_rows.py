"""Rows of `ablation_effects` from the runs: means over tokens, with intervals over documents.

A mean is pooled over documents, Σ sums / Σ counts. Intervals are percentile bootstraps with
documents as units, since the tokens of one are alike; the kinds of documents are drawn apart.
All rows of as many documents have the same draws, so a feature and its null stay paired. A
resample in which the direct effect has the other sign or is nothing counts as below the low and
above the high end of self-repair; with 2.5 % of them or more it has no interval.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from assets.ablation.config import AblationConfig
from assets.ablation.plan import set_to
from assets.ablation.tables import ABLATION_EFFECTS
from assets.ablation.targets import Targets

INTERVAL = (2.5, 97.5)
"""Percentiles of the bootstrap that make the interval."""


def effects_frame(
    runs: pl.DataFrame,
    feature_ids: Sequence[int],
    targets: Mapping[int, Targets],
    fires: Collection[int],
    config: AblationConfig,
    beyond: str,
) -> pl.DataFrame:
    """Rows of `ablation_effects`, without site and fit, for each of `feature_ids`.

    `runs` are rows of `ablation_runs`; `targets` has the features that are measured, `fires` those
    that have a coefficient at all; `beyond` is why one of these is not measured.
    """
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
                    "seed": config.seed,
                }
                of_key = by_key.get((feature_id, ablation, is_null))
                if of_key is not None:
                    aimed = targets[feature_id]
                    row |= {"set_to": set_to(ablation, aimed), "concept": aimed.concept}
                    row["status"] = "ok"
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
_CONCEPT_COUNTS = ("n_documents_concept", "n_tokens_concept")


@dataclass
class _Row:
    """The values of one row, and why some of them are NULL."""

    values: dict[str, object] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    def put(self, name: str, value: float, resamples: np.ndarray | None, why_none: str) -> None:
        """A value with its interval; no interval, and `why_none`, without resamples."""
        self.values[name] = value
        if resamples is None:
            self.reasons.append(f"no interval of {name}: {why_none}")
            return
        low, high = np.percentile(resamples, INTERVAL)
        self.values |= {f"{name}_low": float(low), f"{name}_high": float(high)}


def _measured(runs: pl.DataFrame, config: AblationConfig) -> dict[str, object]:
    """Counts, means and intervals of one feature's, or null's, runs."""
    runs = runs.sort("document_id")
    on, off = runs.filter("is_on"), runs.filter("is_off")
    row = _Row()
    n_on, n_near = int(on["n_tokens_strong"].sum()), int(on["n_tokens_silent"].sum())
    n_off = int(off["n_tokens_silent"].sum())
    row.values |= dict(zip(_COUNTS, (len(on), len(off), n_on, n_near, n_off), strict=True))
    row.values["kl_on"] = _total(on, "kl_strong") / n_on
    if n_near:
        row.values["delta_near"] = _total(on, "delta_silent") / n_near
        row.values["kl_near"] = _total(on, "kl_silent") / n_near
    else:
        row.reasons.append("no near: it fires at every token of its documents")
    on_draws = _draws(len(on), config.n_bootstrap, config.seed, 0)
    strong = _numbers(on, "n_tokens_strong")
    of_on = _ratios(_numbers(on, "delta_strong"), strong, on_draws)
    one = "one document on target"
    delta_on = _total(on, "delta_strong") / n_on
    row.put("delta_on", delta_on, of_on, one)
    if on["promoted_drop"].null_count():
        row.reasons.append("no promoted_drop: no vocabulary projection")
    else:
        dropped = _numbers(on, "promoted_drop")
        row.put(
            "promoted_drop", float(dropped.sum()) / n_on, _ratios(dropped, strong, on_draws), one
        )
    if n_off:
        off_draws = _draws(len(off), config.n_bootstrap, config.seed, 1)
        silent = _numbers(off, "n_tokens_silent")
        of_off = _ratios(_numbers(off, "delta_silent"), silent, off_draws)
        delta_off = _total(off, "delta_silent") / n_off
        row.put("delta_off", delta_off, of_off, "one document off target")
        difference = None if of_on is None or of_off is None else of_on - of_off
        row.put("selectivity", delta_on - delta_off, difference, "one document on or off target")
        row.values["kl_off"] = _total(off, "kl_silent") / n_off
    else:
        row.reasons.append("no delta_off, selectivity, kl_off: it fires in every document")
    _put_concept(row, runs.filter("is_of_concept"), config)
    _put_self_repair(row, on, n_on, on_draws, config)
    return row.values | {"reason": "; ".join(row.reasons) or None}


def _put_concept(row: _Row, runs: pl.DataFrame, config: AblationConfig) -> None:
    n_tokens = int(runs["n_tokens"].sum())
    row.values |= {"n_documents_concept": len(runs), "n_tokens_concept": n_tokens}
    if not n_tokens:
        row.reasons.append("no delta_concept: no documents of a concept")
        return
    draws = _draws(len(runs), config.n_bootstrap, config.seed, 2)
    resampled = _ratios(_numbers(runs, "delta"), _numbers(runs, "n_tokens"), draws)
    row.put("delta_concept", _total(runs, "delta") / n_tokens, resampled, "one document of it")
    row.values["kl_concept"] = _total(runs, "kl") / n_tokens


def _put_self_repair(
    row: _Row,
    on: pl.DataFrame,
    n_on: int,
    draws: Int[np.ndarray, "n_bootstrap n_documents"] | None,
    config: AblationConfig,
) -> None:
    for name in ("direct_effect", "total_effect", "total_effect_own_norm"):
        row.values[name] = _total(on, name) / n_on
    direct, total = _numbers(on, "direct_effect"), _numbers(on, "total_effect")
    if not abs(direct.sum()) / n_on >= config.min_direct_effect:
        row.reasons.append(
            f"no self_repair: the direct effect is {direct.sum() / n_on:.2g} logits, below "
            f"ablation.min_direct_effect={config.min_direct_effect:g}"
        )
        return
    row.values["self_repair"] = 1 - float(total.sum() / direct.sum())
    if draws is None:
        row.reasons.append("no interval of self_repair: one document on target")
        return
    directs, totals = direct[draws].sum(axis=1), total[draws].sum(axis=1)
    is_alike = directs * direct.sum() > 0
    repairs = 1 - np.divide(totals, directs, out=np.zeros_like(totals), where=is_alike)
    low, high = (
        np.percentile(np.where(is_alike, repairs, worst), percentile, method=method)
        for worst, percentile, method in zip(
            (-np.inf, np.inf), INTERVAL, ("lower", "higher"), strict=True
        )
    )
    if np.isfinite([low, high]).all():
        row.values |= {"self_repair_low": float(low), "self_repair_high": float(high)}
    else:
        row.reasons.append(
            f"no interval of self_repair: in {int((~is_alike).sum())} of {len(draws)} resamples "
            "the direct effect has another sign"
        )


@lru_cache(maxsize=16)
def _draws(
    n: int, n_bootstrap: int, seed: int, stream: int
) -> Int[np.ndarray, "n_bootstrap n"] | None:
    """Which of n documents each resample has; None for fewer than two."""
    if n < 2:
        return None
    return np.random.default_rng([seed, stream]).integers(0, n, size=(n_bootstrap, n))


def _ratios(
    sums: Float[np.ndarray, " n"],
    counts: Float[np.ndarray, " n"],
    draws: Int[np.ndarray, "n_bootstrap n"] | None,
) -> Float[np.ndarray, " n_bootstrap"] | None:
    if draws is None:
        return None
    return sums[draws].sum(axis=1) / counts[draws].sum(axis=1)


def _numbers(runs: pl.DataFrame, name: str) -> Float[np.ndarray, " n_documents"]:
    return runs[name].cast(pl.Float64).to_numpy()


def _total(runs: pl.DataFrame, name: str) -> float:
    return float(_numbers(runs, name).sum())
