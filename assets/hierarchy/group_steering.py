"""The weekday experiment: steer by a group's core or exclusive neurons, watch the tokens.

Each intervention adds a unit direction where steering/steered_site.py says, at the strength at
which the mean KL of the next-token distribution meets the target (calibration.py), and is measured
by

    Δ(concept) = mean over prompts of  log p_steered(token) − log p_base(token)

at the last prompt token, with token the first of " " + concept. Interventions:

- core: the core neurons' part of the members' mean. Claim: every member's token rises.
- exclusive: a member's exclusive neurons. Claim: its own token rises above the others'.
- null_core, null_exclusive: the same weights on random neurons, several draws.

Concepts of the corpus outside the group are measured too: a rise of everything is no finding.
Shafran, Geiger and Geva (2025), section 6. Which neurons are core is core_neurons.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from assets.activations.sites import ActivationSite
from assets.activations.suffix_forward import SuffixForward
from assets.factorization.null_controls import permuted_rows
from assets.factorization.sparse_rows import unit_rows
from assets.hierarchy.core_neurons import (
    CORE,
    EXCLUSIVE,
    core_direction,
    exclusive_directions,
    neuron_roles,
)
from assets.hierarchy.group_tables import GROUP_STEERING
from assets.steering.calibration import calibrate_strengths
from assets.steering.steered_site import steered_directions, steered_site

NULL_PREFIX = "null_"
BATCH_ROWS = 64


@dataclass(frozen=True, eq=False)
class Intervention:
    """One direction to steer by; `steered` is the member's concept, or the group for its core."""

    group_name: str
    intervention: str
    steered: str
    draw: int
    seed: int | None
    direction: Float[Tensor, " d"]
    n_neurons: int


@dataclass(frozen=True)
class MeasuredToken:
    """A concept and its first token; `shared_with` are the concepts it cannot be told from."""

    concept: str
    token_id: int
    token: str
    shared_with: tuple[str, ...] = ()


def plan_interventions(
    group_name: str,
    concepts: Sequence[str],
    members: Float[Tensor, "m d"],
    *,
    core_share: float,
    n_null_draws: int,
    seed: int,
) -> list[Intervention]:
    """Core, each member's exclusive, and `n_null_draws` nulls of both; unit or zero directions."""
    roles = neuron_roles(members, core_share)
    directions = unit_rows(
        torch.cat([core_direction(members, roles)[None], exclusive_directions(members, roles)])
    )
    names = [(CORE, group_name), *((EXCLUSIVE, concept) for concept in concepts)]
    planned = [
        Intervention(group_name, kind, steered, 0, None, row, int((row != 0).sum()))
        for (kind, steered), row in zip(names, directions, strict=True)
    ]
    nulls = []
    for draw in range(1, n_null_draws + 1):
        draw_seed = seed + draw
        generator = torch.Generator().manual_seed(draw_seed)
        rows = permuted_rows(directions, generator)
        nulls += [
            replace(
                real,
                intervention=NULL_PREFIX + real.intervention,
                draw=draw,
                seed=draw_seed,
                direction=row,
            )
            for real, row in zip(planned, rows, strict=True)
        ]
    return planned + nulls


def measured_tokens(tokenizer: Any, concepts: Sequence[str]) -> list[MeasuredToken]:
    """The first token of " " + concept, and with which of the concepts it is shared."""
    firsts = [
        tokenizer(" " + concept, add_special_tokens=False)["input_ids"][0] for concept in concepts
    ]
    return [
        MeasuredToken(
            concept,
            first,
            tokenizer.decode([first]),
            tuple(c for c, f in zip(concepts, firsts, strict=True) if f == first and c != concept),
        )
        for concept, first in zip(concepts, firsts, strict=True)
    ]


def steer_groups(
    model: Any,
    site: ActivationSite,
    interventions: Sequence[Intervention],
    tokens: Sequence[MeasuredToken],
    members_of: Mapping[str, Sequence[str]],
    prompt_ids: Sequence[Sequence[int]],
    *,
    target_kl_nats: float,
    tolerance: float,
    max_evaluations: int,
    max_strength_ratio: float,
    on_progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """Rows of `group_steering`: every intervention with every measured concept.

    `site` is that of the interventions' directions. `members_of` maps group names to their
    concepts. An intervention without neurons is
    not_attempted, one whose KL target was missed not_reached, a concept whose token is another's
    shared_token; all keep their rows, with the reason.
    """
    device = next(model.parameters()).device
    possible = [i for i, planned in enumerate(interventions) if planned.n_neurons]
    added_at = steered_site(model, site)
    directions: dict[int, Tensor] = {}
    strengths: dict[int, dict[str, Any]] = {}
    if possible:
        rows = torch.stack([interventions[i].direction for i in possible]).to(device)
        added = steered_directions(model, site, rows)
        directions = dict(zip(possible, added, strict=True))
        calibrated = calibrate_strengths(
            model,
            added_at,
            added,
            feature_ids=possible,
            signs=("+",),
            target_kl_nats=(target_kl_nats,),
            prompt_ids=prompt_ids,
            tolerance=tolerance,
            max_evaluations=max_evaluations,
            max_strength_ratio=max_strength_ratio,
            on_progress=on_progress,
        )
        strengths = {row["feature_id"]: row for row in calibrated.rows.iter_rows(named=True)}
    reached = [i for i in possible if strengths[i]["status"] == "ok"]
    gains: dict[int, Tensor] = {}
    base: Tensor | None = None
    if reached:
        vectors = torch.stack([directions[i] * strengths[i]["strength"] for i in reached])
        suffix = SuffixForward(model, added_at, prompt_ids)
        found, base = token_gains(suffix, vectors, [token.token_id for token in tokens])
        gains = dict(zip(reached, found, strict=True))
    rows = [
        _row(planned, token, members_of[planned.group_name], strengths.get(i), target_kl_nats)
        | {"steered_at": added_at.kind}
        | _measured(gains.get(i), base, column, token)
        for i, planned in enumerate(interventions)
        for column, token in enumerate(tokens)
    ]
    schema = GROUP_STEERING.empty().drop(GROUP_STEERING.partition_by).schema
    return pl.DataFrame(rows, schema=schema)


def token_gains(
    suffix: SuffixForward, vectors: Float[Tensor, "n d"], token_ids: Sequence[int]
) -> tuple[Float[Tensor, "n n_prompts n_tokens"], Float[Tensor, "n_prompts n_tokens"]]:
    """log p_steered − log p_base of each token after each prompt, and log p_base; in nats."""
    n_prompts = suffix.n_prompts
    gains = torch.zeros(len(vectors), n_prompts, len(token_ids), dtype=torch.float64)
    base = torch.zeros(n_prompts, len(token_ids), dtype=torch.float64)
    columns = list(token_ids)
    for group in suffix.groups:
        places = torch.tensor(group.prompt_indices)
        of_base = group.base_logits.log_softmax(-1)[:, columns].double().cpu()
        base[places] = of_base
        pairs = torch.arange(len(vectors) * len(places))
        for chunk in pairs.split(BATCH_ROWS):
            row, which = chunk // len(places), chunk % len(places)
            logits = suffix.logits(
                group,
                which.to(group.hidden.device),
                vectors[row.to(vectors.device)].to(group.hidden.device),
            )
            steered = logits.log_softmax(-1)[:, columns].double().cpu()
            gains[row, places[which]] = steered - of_base[which]
    return gains, base


def _row(
    planned: Intervention,
    token: MeasuredToken,
    members: Sequence[str],
    calibration: Mapping[str, Any] | None,
    target_kl_nats: float,
) -> dict[str, Any]:
    row = {
        "group_name": planned.group_name,
        "intervention": planned.intervention,
        "steered": planned.steered,
        "draw": planned.draw,
        "seed": planned.seed,
        "n_neurons": planned.n_neurons,
        "measured_concept": token.concept,
        "is_member": token.concept in members,
        "token": token.token,
        "target_kl_nats": target_kl_nats,
        "strength": None,
        "achieved_kl_nats": None,
        "is_converged": False,
        "status": "not_attempted",
        "reason": f"the group has no {planned.intervention.removeprefix(NULL_PREFIX)} neurons here",
    }
    if calibration is None:
        return row
    for column in ("strength", "achieved_kl_nats", "is_converged", "status", "reason"):
        row[column] = calibration[column]
    if row["status"] == "ok" and token.shared_with:
        row["status"] = "shared_token"
        row["reason"] = (
            f"the first token {token.token!r} is also that of {', '.join(token.shared_with)}"
        )
    return row


def _measured(
    gains: Tensor | None, base: Tensor | None, column: int, token: MeasuredToken
) -> dict[str, Any]:
    n_prompts = 0 if base is None else len(base)
    if gains is None or base is None or token.shared_with:
        return {
            "delta_logprob": None,
            "delta_logprob_standard_error": None,
            "base_logprob": None,
            "n_prompts": n_prompts,
        }
    values = gains[:, column]
    error = float(values.std()) / math.sqrt(n_prompts) if n_prompts > 1 else None
    return {
        "delta_logprob": float(values.mean()),
        "delta_logprob_standard_error": error,
        "base_logprob": float(base[:, column].mean()),
        "n_prompts": n_prompts,
    }
