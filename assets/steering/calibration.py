"""Calibration: the strength at which steering moves the next-token distribution by a target KL.

KL(α) is that of next_token_change.py, where steered adds sign·α·(unit direction) at the site at all
positions; site and directions are those that steered_site.py chooses for the features. Each
feature, sign and target is a search of its own (strength_search.py); searches of one feature and
sign share the strengths that they have in common, and each round evaluates what all open searches
ask for in common batches. The search begins at 0.6 of the site's median activation norm, may go
down to 1e-3, and ends at `max_strength_ratio` norms: beyond, nothing resembles an activation,
and the row says that the target was not reached.

Beside it a judge-free output score: the mean log-probability that steering at the strength found
adds to the feature's own tokens (the idea of Arad et al., arXiv 2505.20063, sec. 3).

No row depends on which others are calibrated with it, so rows made before from the same direction,
model, prompts and settings are taken over, and only the others are computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from assets.activations.sites import ActivationSite, locate_site
from assets.activations.suffix_forward import SuffixForward
from assets.shared.row_reuse import reusable_rows, row_fingerprint
from assets.steering.computed_rows import ComputedRows
from assets.steering.forward_count import count_forward_tokens
from assets.steering.next_token_change import (
    NextTokenChange,
    median_activation_norm,
    next_token_changes,
)
from assets.steering.strength_search import FoundStrength, StrengthSearch
from assets.steering.tables import CALIBRATIONS

SIGN_FACTORS = {"+": 1.0, "-": -1.0}
_SMALLEST_STRENGTH = 1e-3
_START_SHARE = 0.6

Progress = Callable[[int, int], None]
# Place of the feature in `directions`, sign, target KL.
_Key = tuple[int, str, float]
# Strength -> what it changes, for each place and sign.
_Curves = dict[tuple[int, str], dict[float, NextTokenChange]]


@dataclass(frozen=True, kw_only=True)
class CalibrationRun(ComputedRows):
    """Rows of `calibrations`, and how their search went.

    `curve` has feature_id, sign, strength, kl_nats (NULL where not finite) of this run's
    evaluations. `median_activation_norm` is None where every row was reused: nothing ran then.
    """

    curve: pl.DataFrame
    median_activation_norm: float | None


@dataclass(frozen=True)
class _Settings:
    """What a search is made with, the same for all rows of a run."""

    tolerance: float
    max_evaluations: int
    max_strength_ratio: float
    batch_rows: int

    def search(self, target: float, norm: float) -> StrengthSearch:
        return StrengthSearch(
            target=target,
            start=_START_SHARE * norm,
            minimum=_SMALLEST_STRENGTH,
            maximum=max(self.max_strength_ratio * norm, _SMALLEST_STRENGTH),
            tolerance=self.tolerance,
            max_evaluations=self.max_evaluations,
        )


def calibrate_strengths(
    model: Any,
    site: ActivationSite,
    directions: Float[Tensor, "n_features d"],
    *,
    feature_ids: Sequence[int],
    signs: Sequence[str],
    target_kl_nats: Sequence[float],
    prompt_ids: Sequence[Sequence[int]],
    tolerance: float = 0.05,
    max_evaluations: int = 48,
    max_strength_ratio: float = 100.0,
    batch_rows: int = 16,
    own_tokens: Mapping[int, Sequence[int]] | None = None,
    made_by: Sequence[str] = (),
    previous: pl.DataFrame | None = None,
    on_progress: Progress | None = None,
) -> CalibrationRun:
    """Calibrate every feature, sign and target; one row each, whatever came of it.

    `directions` have unit rows, `feature_ids` name them (a row of zeros moves nothing, and its
    targets are not reached); `site` is where they are added; `prompt_ids` are tokenized neutral
    prompts, all of the same weight; `own_tokens` maps features to the tokens whose gain in
    log-probability is reported. `made_by` is what else decides the numbers (code version, model
    revision, dtype); rows of `previous` (of the table) that carry a wanted row's fingerprint are
    taken over. `on_progress` gets (searches finished, searches). Raises ValueError for directions
    that are neither unit vectors nor zero, or do not fit the site.
    """
    _check_directions(directions, feature_ids, signs, locate_site(model, site).width)
    own_tokens = own_tokens or {}
    settings = _Settings(tolerance, max_evaluations, max_strength_ratio, batch_rows)
    common = (*made_by, site.key, repr(settings), repr([list(ids) for ids in prompt_ids]))
    rows_of_directions = directions.detach().float().cpu().numpy()
    fingerprints = {
        (i, sign, target): row_fingerprint(
            *common,
            rows_of_directions[i],
            sign,
            float(target),
            np.array(own_tokens.get(feature_id, ()), dtype=np.int64),
        )
        for i, feature_id in enumerate(feature_ids)
        for sign in signs
        for target in target_kl_nats
    }
    kept = reusable_rows(
        CALIBRATIONS.empty() if previous is None else previous, fingerprints.values()
    )
    wanted = [key for key, made_from in fingerprints.items() if made_from not in kept]
    computed: dict[_Key, dict[str, Any]] = {}
    curves: _Curves = {}
    norm, suffix = None, None
    with count_forward_tokens(model) as count:
        if wanted:
            suffix = SuffixForward(model, site, prompt_ids)
            norm = median_activation_norm(model, site, prompt_ids)
            searches = {key: settings.search(key[2], norm) for key in wanted}
            tokens = [own_tokens.get(feature_id, ()) for feature_id in feature_ids]
            curves = _search(suffix, directions, searches, tokens, batch_rows, on_progress)
            computed = {
                key: _found_row(search, curves[key[:2]]) for key, search in searches.items()
            }
    rows = []
    for key, made_from in fingerprints.items():
        row = computed[key] if key in computed else kept[made_from].row(0, named=True)
        place, sign, target = key
        identity = {"feature_id": feature_ids[place], "sign": sign, "target_kl_nats": target}
        rows.append(row | identity | {"steered_at": site.kind, "row_fingerprint": made_from})
    return CalibrationRun(
        rows=pl.DataFrame(rows, schema=CALIBRATIONS.empty().drop(CALIBRATIONS.partition_by).schema),
        curve=_curve(feature_ids, curves),
        median_activation_norm=norm,
        layer_token_evaluations=suffix.layer_token_evaluations if suffix else 0,
        forward_tokens=count.n_tokens,
        rows_reused=len(fingerprints) - len(wanted),
        rows_computed=len(wanted),
    )


def _search(
    suffix: SuffixForward,
    directions: Float[Tensor, "n_features d"],
    searches: Mapping[_Key, StrengthSearch],
    tokens: Sequence[Sequence[int]],
    batch_rows: int,
    on_progress: Progress | None,
) -> _Curves:
    """Run all searches to their ends; every point evaluated, each once."""
    curves: _Curves = {(i, sign): {} for i, sign, _ in searches}
    open_keys = list(searches)
    while True:
        asked: dict[_Key, None] = {}
        still_open = []
        for key in open_keys:
            search, curve = searches[key], curves[key[:2]]
            while (strength := search.proposal()) is not None and strength in curve:
                search.record(strength, curve[strength].kl_nats)
            if strength is not None:
                asked[(*key[:2], strength)] = None
                still_open.append(key)
        open_keys = still_open
        if on_progress is not None:
            on_progress(len(searches) - len(open_keys), len(searches))
        if not asked:
            return curves
        vectors = _scaled(directions, list(asked))
        changes = next_token_changes(suffix, vectors, [tokens[i] for i, _, _ in asked], batch_rows)
        for (i, sign, strength), change in zip(asked, changes, strict=True):
            curves[i, sign][strength] = change


def _scaled(
    directions: Float[Tensor, "n_features d"], asked: Sequence[tuple[int, str, float]]
) -> Float[Tensor, "n d"]:
    index = torch.tensor([i for i, _, _ in asked], dtype=torch.long, device=directions.device)
    factors = [SIGN_FACTORS[sign] * strength for _, sign, strength in asked]
    scale = torch.tensor(factors, dtype=directions.dtype, device=directions.device)
    return directions[index] * scale[:, None]


def _check_directions(
    directions: Tensor, feature_ids: Sequence[int], signs: Sequence[str], width: int
) -> None:
    if directions.ndim != 2 or directions.shape != (len(feature_ids), width):
        raise ValueError(
            f"directions have shape {tuple(directions.shape)}; expected "
            f"({len(feature_ids)}, {width}): one row a feature id, of the site's width"
        )
    unknown = set(signs) - set(SIGN_FACTORS)
    if unknown or not signs:
        raise ValueError(f"signs are + and -; found {list(signs)}")
    norms = directions.float().norm(dim=1)
    is_wrong = ~(((norms - 1).abs() <= 1e-3) | (norms == 0))
    if is_wrong.any():
        worst = int(((norms - 1).abs() * is_wrong).argmax())
        raise ValueError(
            f"feature {feature_ids[worst]} has a direction of norm {norms[worst]:.4g}; "
            "expected unit directions, since the strength carries the scale"
        )


def _found_row(search: StrengthSearch, curve: Mapping[float, NextTokenChange]) -> dict[str, Any]:
    found = search.result()
    gain = None if found.strength is None else curve[found.strength].token_gain
    return {
        "strength": found.strength,
        "achieved_kl_nats": found.achieved_kl,
        "n_evaluations": len(search.points),
        "is_converged": found.is_converged,
        "token_logprob_gain": gain,
        "status": _status(found),
        "reason": found.reason,
    }


def _status(found: FoundStrength) -> str:
    if found.is_converged:
        return "ok"
    return "failed" if found.achieved_kl is None else "not_reached"


def _curve(feature_ids: Sequence[int], curves: _Curves) -> pl.DataFrame:
    points = [
        (feature_ids[index], sign, strength, kl if math.isfinite(kl := change.kl_nats) else None)
        for (index, sign), curve in curves.items()
        for strength, change in sorted(curve.items())
    ]
    schema = {
        "feature_id": pl.Int32,
        "sign": pl.String,
        "strength": pl.Float64,
        "kl_nats": pl.Float64,
    }
    return pl.DataFrame(points, schema=schema, orient="row")
