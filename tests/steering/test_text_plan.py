"""From calibrations to texts to rows: base texts once, missed targets kept with their reason."""

from __future__ import annotations

import polars as pl
import torch

from assets.steering.generation import SamplingSettings
from assets.steering.tables import STEERED_TEXTS
from assets.steering.text_plan import TextPlan, plan_texts, texts_frame

PARTITION = {"site": "s", "fit": "f"}
CALIBRATIONS = pl.DataFrame(
    [
        (3, "+", 0.1, 2.0, "ok", None),
        (3, "-", 0.1, 5.0, "ok", None),
        (8, "+", 0.1, None, "not_reached", "KL stays below"),
    ],
    schema=["feature_id", "sign", "target_kl_nats", "strength", "status", "reason"],
    orient="row",
)
DIRECTIONS = {3: torch.tensor([0.6, 0.8]), 8: torch.tensor([1.0, 0.0])}


def plan(with_base: bool = True) -> TextPlan:
    return plan_texts(
        CALIBRATIONS,
        DIRECTIONS,
        prompts=["I think", "She said that"],
        prompt_ids=[[1, 2], [3, 4, 5]],
        n_texts=3,
        seed=100,
        settings=SamplingSettings(),
        with_base=with_base,
    )


def test_vectors_prompts_and_seeds() -> None:
    rows = plan(with_base=False).to_generate
    assert [(row.sign, row.text_index, row.prompt_ids, row.seed) for row in rows] == [
        (sign, index, prompt, 100 + index)
        for sign in "+-"
        for index, prompt in enumerate([(1, 2), (3, 4, 5), (1, 2)])
    ]
    assert torch.allclose(
        torch.stack([rows[0].vector, rows[3].vector]), torch.tensor([[1.2, 1.6], [-3.0, -4.0]])
    )


def test_base_texts_are_generated_once_and_stand_for_each_feature() -> None:
    planned = plan()
    assert sum(row.vector is None for row in planned.to_generate) == 3
    frame = texts_frame(planned, [f"text {i}" for i in range(len(planned.to_generate))])
    STEERED_TEXTS.conform(frame, PARTITION)
    base = frame.filter(sign="0")
    assert base["feature_id"].to_list() == [3, 3, 3, 8, 8, 8]
    assert base["text"].to_list() == ["text 0", "text 1", "text 2"] * 2
    assert set(base["strength"]) == {0.0}


def test_missed_targets_and_empty_texts_are_rows_with_reasons() -> None:
    planned = plan(with_base=False)
    frame = texts_frame(planned, ["a", "b", "c", "d", "  \n", "f"])
    STEERED_TEXTS.conform(frame, PARTITION)
    assert len(frame) == 9
    missed = frame.filter(feature_id=8)
    assert missed["status"].to_list() == ["not_reached"] * 3
    assert missed["text"].null_count() == 3
    assert "KL stays below" in missed["reason"][0]
    ended = frame.filter(sign="-", text_index=1).row(0, named=True)
    assert (ended["status"], ended["text"]) == ("empty", None)
    assert frame.filter(status="ok")["reason"].null_count() == 5
