"""All that a fit's groups are steered with: directions, measured tokens, prompts and calibration.

The plan is made from the settings before anything runs, so that its fingerprint can say whether the
rows that are there would come out again. Whose rows a group has is group_rows.py; what a
direction is and what it does to the model is group_steering.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from assets.activations.sites import ActivationSite
from assets.hierarchy.config import HierarchyConfig
from assets.hierarchy.group_reuse import steering_fingerprint
from assets.hierarchy.group_rows import GroupRows
from assets.hierarchy.group_steering import (
    Intervention,
    MeasuredToken,
    measured_tokens,
    plan_interventions,
    steer_groups,
)
from assets.steering.config import SteeringConfig


@dataclass(frozen=True, eq=False)
class SteeringPlan:
    """`members_of` maps group names to concepts, `calibration` holds options of `steer_groups`."""

    interventions: list[Intervention]
    tokens: list[MeasuredToken]
    members_of: Mapping[str, Sequence[str]]
    prompt_ids: list[list[int]]
    calibration: Mapping[str, Any]

    def fingerprint(self, *made_with: str) -> str:
        """Hash (16 hex digits) of the plan and of what runs it: code, model, number type, site."""
        return steering_fingerprint(
            self.interventions,
            self.tokens,
            self.prompt_ids,
            (*self.calibration.values(), *made_with),
        )

    def run(
        self, model: Any, site: ActivationSite, on_progress: Callable[[int, int], None]
    ) -> pl.DataFrame:
        """Rows of `group_steering`, as `steer_groups` gives them."""
        return steer_groups(
            model,
            site,
            self.interventions,
            self.tokens,
            self.members_of,
            self.prompt_ids,
            **self.calibration,
            on_progress=on_progress,
        )


def steering_plan(
    groups: Sequence[GroupRows],
    concepts: Sequence[str],
    tokenizer: Any,
    config: HierarchyConfig,
    steering: SteeringConfig,
) -> SteeringPlan:
    """What the groups are steered with; `concepts` are all those of the corpus, each measured."""
    prompts = dict.fromkeys((*steering.neutral_prompts, *config.group_prompts))
    return SteeringPlan(
        interventions=[
            planned
            for group in groups
            for planned in plan_interventions(
                group.name,
                group.concepts,
                group.rows,
                core_share=config.core_share,
                n_null_draws=config.n_null_draws,
                seed=config.seed,
            )
        ],
        tokens=measured_tokens(tokenizer, concepts),
        members_of={group.name: group.concepts for group in groups},
        prompt_ids=[tokenizer(prompt)["input_ids"] for prompt in prompts],
        # Their order is part of the fingerprints that are stored.
        calibration={
            "target_kl_nats": config.group_target_kl_nats,
            "tolerance": steering.tolerance,
            "max_evaluations": steering.max_evaluations,
            "max_strength_ratio": steering.max_strength_ratio,
        },
    )
