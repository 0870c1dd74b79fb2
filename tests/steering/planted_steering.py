"""A small study of a tiny model, steered from Python: calibrations, then texts, with reuse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import torch
from torch import nn

from assets.activations.sites import ActivationSite, locate_site
from assets.shared.schema import Table
from assets.steering.calibration import CalibrationRun, calibrate_strengths
from assets.steering.generation import SamplingSettings, generate_steered
from assets.steering.tables import CALIBRATIONS, STEERED_TEXTS
from assets.steering.text_plan import TextPlan, plan_texts, texts_frame

PARTITION = {"site": "s", "fit": "f"}
SITE = ActivationSite(1)
PROMPTS = {"I think": [5, 9, 33], "She said that": [4, 17, 50, 8, 30]}


class NumberTokenizer:
    """Token i reads " i"."""

    eos_token_id: int | None = None

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return "".join(f" {i}" for i in ids)


@dataclass
class Steered:
    """What one run left: its rows as the lake gives them back, and what it computed."""

    calibration: CalibrationRun
    plan: TextPlan
    calibrations: pl.DataFrame
    texts: pl.DataFrame


@dataclass
class Study:
    """Inputs of a run; change a field, steer again."""

    model: nn.Module
    directions: dict[int, torch.Tensor]
    calibration: dict[str, Any] = field(
        default_factory=lambda: {"target_kl_nats": (0.005, 0.4), "signs": ("+", "-")}
    )
    sampling: SamplingSettings = field(
        default_factory=lambda: SamplingSettings(max_new_tokens=6, top_p=0.9)
    )
    own_tokens: dict[int, list[int]] = field(default_factory=dict)
    prompts: dict[str, list[int]] = field(default_factory=lambda: dict(PROMPTS))
    n_texts: int = 3
    seed: int = 7
    made_by: tuple[str, ...] = ("code", "revision", "float32")

    def steer(self, before: Steered | None = None) -> Steered:
        directions = torch.stack(list(self.directions.values()))
        calibration = calibrate_strengths(
            self.model,
            SITE,
            directions,
            feature_ids=list(self.directions),
            prompt_ids=list(self.prompts.values()),
            own_tokens=self.own_tokens,
            made_by=self.made_by,
            previous=before and before.calibrations,
            **self.calibration,
        )
        plan = plan_texts(
            calibration.rows,
            self.directions,
            prompts=list(self.prompts),
            prompt_ids=list(self.prompts.values()),
            n_texts=self.n_texts,
            seed=self.seed,
            settings=self.sampling,
            made_by=(*self.made_by, SITE.key),
            previous=before and before.texts,
        )
        texts = generate_steered(
            self.model, NumberTokenizer(), SITE, plan.to_generate, self.sampling
        )
        return Steered(
            calibration,
            plan,
            _as_stored(CALIBRATIONS, calibration.rows),
            _as_stored(STEERED_TEXTS, texts_frame(plan, texts)),
        )


def unit_directions(model: nn.Module, n: int, seed: int = 3) -> dict[int, torch.Tensor]:
    """Feature ids from 10 on, with random unit directions."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(n, locate_site(model, SITE).width, generator=generator)
    return dict(enumerate(directions / directions.norm(dim=1, keepdim=True), start=10))


@contextmanager
def no_forward(model: nn.Module) -> Iterator[None]:
    """Any forward pass inside is an error."""

    def refuse(*_: Any) -> None:
        raise AssertionError("the model ran")

    handle = model.register_forward_pre_hook(refuse)
    try:
        yield
    finally:
        handle.remove()


def _as_stored(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    return table.conform(rows, PARTITION).sort(table.key)
