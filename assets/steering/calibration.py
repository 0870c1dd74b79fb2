"""Calibration: the strength at which steering moves the next-token distribution by a target KL.

KL(α) = mean over the neutral prompts of KL(base ‖ steered) at the last prompt token, where steered
adds sign·α·(unit feature direction) at the site at all positions. Each feature and sign is a curve
of its own, searched by strength_search.py; each round evaluates the open curves' strengths in
common batches through suffix_forward.py. The search begins at a fiftieth of the site's median
activation norm, may go down to 1e-3, and ends at `max_strength_ratio` norms: beyond, nothing
resembles an activation, and the row says that the target was not reached.

Beside it a judge-free output score: the mean log-probability that steering at the strength found
adds to the feature's own tokens (the idea of Arad et al., arXiv 2505.20063, sec. 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from assets.activations.hooks import record_sites, run_forward
from assets.activations.sites import ActivationSite
from assets.activations.suffix_forward import PromptGroup, SuffixForward
from assets.steering.strength_search import FoundStrength, StrengthSearch
from assets.steering.tables import CALIBRATIONS

SIGN_FACTORS = {"+": 1.0, "-": -1.0}
_SMALLEST_STRENGTH = 1e-3
_START_SHARE = 0.02

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CalibrationRun:
    """Rows of `calibrations` (without partition columns), every curve point, and the cost.

    `curve` has feature_id, sign, strength, kl_nats (NULL where not finite).
    """

    rows: pl.DataFrame
    curve: pl.DataFrame
    median_activation_norm: float
    layer_token_evaluations: int


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
    batch_rows: int = 64,
    own_tokens: Mapping[int, Sequence[int]] | None = None,
    on_progress: Progress | None = None,
) -> CalibrationRun:
    """Calibrate every feature, sign and target; one row each, whatever came of it.

    `directions` have unit rows, `feature_ids` name them; `prompt_ids` are tokenized neutral
    prompts, all of the same weight; `own_tokens` maps features to the tokens whose gain in
    log-probability is reported. `on_progress` gets (curves finished, curves). Raises ValueError
    for directions that are not unit vectors or do not fit the site.
    """
    suffix = SuffixForward(model, site, prompt_ids)
    _check_directions(directions, feature_ids, signs, suffix.width)
    norm = median_activation_norm(model, site, prompt_ids)
    keys = [(i, sign) for i in range(len(feature_ids)) for sign in signs]
    searches = {
        key: StrengthSearch(
            targets=tuple(target_kl_nats),
            start=_START_SHARE * norm,
            minimum=_SMALLEST_STRENGTH,
            maximum=max(max_strength_ratio * norm, _SMALLEST_STRENGTH),
            tolerance=tolerance,
            max_evaluations=max_evaluations,
        )
        for key in keys
    }
    open_keys = keys
    while asked := [(key, a) for key in open_keys for a in searches[key].proposals()]:
        vectors = _scaled(directions, [(i, sign, strength) for (i, sign), strength in asked])
        for (key, strength), kl in zip(asked, mean_kl(suffix, vectors, batch_rows), strict=True):
            searches[key].record(strength, kl)
        open_keys = list(dict.fromkeys(key for key, _ in asked))
        if on_progress is not None:
            on_progress(len(keys) - len(open_keys), len(keys))
    if on_progress is not None:
        on_progress(len(keys), len(keys))

    rows = [
        _row(feature_ids[index], sign, search, target)
        for (index, sign), search in searches.items()
        for target in target_kl_nats
    ]
    _add_token_gains(suffix, directions, feature_ids, rows, own_tokens or {}, batch_rows)
    schema = {
        c.name: c.polars_type
        for c in CALIBRATIONS.columns
        if c.name not in CALIBRATIONS.partition_by
    }
    return CalibrationRun(
        rows=pl.DataFrame(rows, schema=schema, orient="row"),
        curve=_curve(feature_ids, searches),
        median_activation_norm=norm,
        layer_token_evaluations=suffix.layer_token_evaluations,
    )


def mean_kl(suffix: SuffixForward, vectors: Float[Tensor, "n d"], batch_rows: int) -> list[float]:
    """Mean over the prompts of KL(base ‖ steered) at the last token, in nats, for each vector."""
    total = torch.zeros(len(vectors), dtype=torch.float64)
    for rows, group, which, logits in _evaluations(suffix, vectors, batch_rows):
        base = group.base_logits[which].log_softmax(-1)
        steered = logits.log_softmax(-1)
        kl = (base.exp() * (base - steered)).sum(-1)
        total.index_add_(0, rows, kl.double().cpu())
    # Rounding can leave a KL of nearly 0 a hair below it.
    return [max(kl, 0.0) if kl == kl else kl for kl in (total / suffix.n_prompts).tolist()]


def mean_token_gain(
    suffix: SuffixForward,
    vectors: Float[Tensor, "n d"],
    tokens: Sequence[Sequence[int]],
    batch_rows: int,
) -> list[float]:
    """Mean over prompts and over `tokens[i]` of log p_steered − log p_base, for each vector."""
    total = torch.zeros(len(vectors), dtype=torch.float64)
    for rows, group, which, logits in _evaluations(suffix, vectors, batch_rows):
        gains = logits.log_softmax(-1) - group.base_logits[which].log_softmax(-1)
        for row, gain in zip(rows.tolist(), gains, strict=True):
            total[row] += gain[list(tokens[row])].double().mean().cpu()
    return (total / suffix.n_prompts).tolist()


@torch.no_grad()
def median_activation_norm(
    model: Any, site: ActivationSite, prompt_ids: Sequence[Sequence[int]]
) -> float:
    """Median over the prompts' tokens of the activation's L2 norm at the site."""
    norms: list[Tensor] = []

    def keep(_: ActivationSite, activations: Tensor) -> None:
        norms.append(activations.float().norm(dim=-1).flatten().cpu())

    device = next(model.parameters()).device
    with record_sites(model, [site], keep):
        for ids in prompt_ids:
            run_forward(model, {"input_ids": torch.tensor([list(ids)], device=device)}, site.layer)
    return float(torch.cat(norms).median())


def _evaluations(
    suffix: SuffixForward, vectors: Float[Tensor, "n d"], batch_rows: int
) -> Iterator[tuple[Tensor, PromptGroup, Tensor, Tensor]]:
    """(vector rows, group, prompts within it, logits), over all pairs of a vector and a prompt."""
    for group in suffix.groups if len(vectors) else ():
        n_prompts = len(group.prompt_indices)
        pairs = torch.arange(len(vectors) * n_prompts)
        for chunk in pairs.split(batch_rows):
            rows, which = chunk // n_prompts, (chunk % n_prompts).to(group.hidden.device)
            chosen = vectors[rows.to(vectors.device)].to(group.hidden.device)
            yield rows, group, which, suffix.logits(group, which, chosen)


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
    if len(norms) and not torch.allclose(norms, torch.ones_like(norms), atol=1e-3):
        worst = int((norms - 1).abs().argmax())
        raise ValueError(
            f"feature {feature_ids[worst]} has a direction of norm {norms[worst]:.4g}; "
            "expected unit directions, since the strength carries the scale"
        )


def _row(feature_id: int, sign: str, search: StrengthSearch, target: float) -> dict[str, Any]:
    found = search.result(target)
    return {
        "feature_id": feature_id,
        "sign": sign,
        "target_kl_nats": target,
        "strength": found.strength,
        "achieved_kl_nats": found.achieved_kl,
        "n_evaluations": len(search.points),
        "is_converged": found.is_converged,
        "token_logprob_gain": None,
        "status": _status(found),
        "reason": found.reason,
    }


def _status(found: FoundStrength) -> str:
    if found.is_converged:
        return "ok"
    return "failed" if found.achieved_kl is None else "not_reached"


def _add_token_gains(
    suffix: SuffixForward,
    directions: Tensor,
    feature_ids: Sequence[int],
    rows: Sequence[dict[str, Any]],
    own_tokens: Mapping[int, Sequence[int]],
    batch_rows: int,
) -> None:
    place = {feature_id: i for i, feature_id in enumerate(feature_ids)}
    chosen = [row for row in rows if row["is_converged"] and own_tokens.get(row["feature_id"])]
    asked = [(place[row["feature_id"]], row["sign"], row["strength"]) for row in chosen]
    tokens = [own_tokens[row["feature_id"]] for row in chosen]
    gains = mean_token_gain(suffix, _scaled(directions, asked), tokens, batch_rows)
    for row, gain in zip(chosen, gains, strict=True):
        row["token_logprob_gain"] = gain


def _curve(
    feature_ids: Sequence[int], searches: Mapping[tuple[int, str], StrengthSearch]
) -> pl.DataFrame:
    points = [
        (feature_ids[index], sign, strength, kl if math.isfinite(kl) else None)
        for (index, sign), search in searches.items()
        for strength, kl in sorted(search.points.items())
    ]
    schema = {
        "feature_id": pl.Int32,
        "sign": pl.String,
        "strength": pl.Float64,
        "kl_nats": pl.Float64,
    }
    return pl.DataFrame(points, schema=schema, orient="row")
