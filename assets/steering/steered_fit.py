"""The steered features of a fit: by a study's settings, their strengths and then their texts.

Nothing is computed here. Settings and features are handed to calibration.py, text_plan.py and
generation.py, which say what they mean, together with what else decides a row: the code that makes
it, the model, and the site where features are added (steered_site.py). Judging is no part of these,
so a new judge leaves strengths and texts as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl
from jaxtyping import Float
from torch import Tensor

from assets.activations.sites import ActivationSite, locate_blocks
from assets.steering.calibration import CalibrationRun, Progress, calibrate_strengths
from assets.steering.computed_rows import ComputedRows
from assets.steering.config import SteeringConfig
from assets.steering.forward_count import count_forward_tokens
from assets.steering.generation import SamplingSettings, generate_steered
from assets.steering.input_score import first_tokens
from assets.steering.steered_site import steered_directions, steered_site
from assets.steering.text_plan import plan_texts, texts_frame

N_OWN_TOKENS = 10
"""So many of the tokens that a feature promotes are its own, whose gain calibrations report."""


@dataclass(frozen=True, eq=False)
class SteeredFit:
    """Features of one fit to steer: row i of `features` is that of feature `feature_ids[i]`.

    `model_identity` tells the model's numbers from another's (revision, dtype); `features` are
    unit directions at the site `fitted_at`.
    """

    model: Any
    tokenizer: Any
    model_identity: tuple[str, ...]
    fitted_at: ActivationSite
    feature_ids: Sequence[int]
    features: Float[Tensor, "n_features d"]
    config: SteeringConfig

    @cached_property
    def site(self) -> ActivationSite:
        """Where the features are added."""
        return steered_site(self.model, self.fitted_at)

    @cached_property
    def directions(self) -> Float[Tensor, "n_features d_steered"]:
        """What is added there, at unit length."""
        return steered_directions(self.model, self.fitted_at, self.features)

    @cached_property
    def prompt_ids(self) -> list[list[int]]:
        """Tokens of the neutral prompts."""
        return [self.tokenizer(prompt)["input_ids"] for prompt in self.config.neutral_prompts]

    def calibrate(
        self,
        projection: pl.DataFrame,
        *,
        code: str,
        previous: pl.DataFrame,
        on_progress: Progress | None = None,
    ) -> CalibrationRun:
        """Strengths of every feature, sign and target.

        `projection` are the fit's rows of `vocab_projection`; `code` the version of the code that
        makes a row; rows of `previous` made from the same are taken over.
        """
        config = self.config
        own_tokens = {
            feature_id: ids
            for (feature_id, sign), ids in first_tokens(projection, N_OWN_TOKENS).items()
            if sign == "+"
        }
        return calibrate_strengths(
            self.model,
            self.site,
            self.directions,
            feature_ids=self.feature_ids,
            signs=config.signs,
            target_kl_nats=config.target_kl_nats,
            prompt_ids=self.prompt_ids,
            tolerance=config.tolerance,
            max_evaluations=config.max_evaluations,
            max_strength_ratio=config.max_strength_ratio,
            own_tokens=own_tokens,
            made_by=self._made_by(code),
            previous=previous,
            on_progress=on_progress,
        )

    def write_texts(
        self,
        calibrations: pl.DataFrame,
        *,
        code: str,
        previous: pl.DataFrame,
        on_progress: Progress | None = None,
    ) -> ComputedRows:
        """Texts at the strengths of `calibrations`, and unsteered ones; the rest as `calibrate`."""
        config = self.config
        settings = SamplingSettings(
            max_new_tokens=config.max_new_tokens,
            top_k=config.top_k,
            top_p=config.top_p,
            temperature=config.temperature,
            batch_rows=config.batch_rows,
        )
        plan = plan_texts(
            calibrations,
            dict(zip(self.feature_ids, self.directions, strict=True)),
            prompts=config.neutral_prompts,
            prompt_ids=self.prompt_ids,
            n_texts=config.n_texts,
            seed=config.seed,
            settings=settings,
            made_by=self._made_by(code),
            previous=previous,
        )
        with count_forward_tokens(self.model) as count:
            texts = generate_steered(
                self.model,
                self.tokenizer,
                self.site,
                plan.to_generate,
                settings,
                on_progress=on_progress,
            )
        return ComputedRows(
            rows=texts_frame(plan, texts),
            layer_token_evaluations=len(locate_blocks(self.model)) * count.n_tokens,
            forward_tokens=count.n_tokens,
            rows_reused=plan.rows_reused,
            rows_computed=plan.rows_computed,
        )

    def _made_by(self, code: str) -> tuple[str, ...]:
        return (code, *self.model_identity, self.site.key)
