"""A rerun computes only the rows whose inputs changed, and gives what a first run would give."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
import torch

from assets.activations.sites import locate_blocks
from assets.shared.code_hash import imported_closure
from assets.steering.definitions import CALIBRATION_MODULE, GENERATION_MODULE
from assets.steering.text_plan import texts_frame
from tests.activations.tiny_models import tiny_model
from tests.steering.planted_steering import Steered, Study, no_forward, unit_directions


def study(architecture: str = "llama", n_features: int = 3) -> Study:
    model = tiny_model(architecture)
    model.generation_config.eos_token_id = None
    return Study(model, unit_directions(model, n_features), own_tokens={11: [5, 20]})


def assert_same_tables(one: Steered, other: Steered) -> None:
    assert one.calibrations.equals(other.calibrations)
    assert one.texts.equals(other.texts)


@pytest.mark.parametrize("architecture", ["gpt2", "gemma2"])
def test_nothing_changed_runs_nothing(architecture: str) -> None:
    steering = study(architecture)
    first = steering.steer()
    assert first.calibration.rows_computed == 12 and first.calibration.rows_reused == 0
    assert first.plan.rows_reused == 0
    assert first.calibration.forward_tokens > 0 and first.calibration.layer_token_evaluations > 0
    with no_forward(steering.model):
        second = steering.steer(first)
        third = steering.steer(second)
    assert_same_tables(first, second)
    assert_same_tables(first, third)
    run = second.calibration
    assert (run.forward_tokens, run.layer_token_evaluations, len(run.curve)) == (0, 0, 0)
    assert (run.rows_reused, run.rows_computed, run.median_activation_norm) == (12, 0, None)
    attempted = len(first.texts.filter(pl.col("status") != "not_reached"))
    assert (second.plan.rows_reused, second.plan.rows_computed) == (attempted, 0)


@pytest.mark.parametrize("architecture", ["gpt2", "gemma2", "opt"])
def test_a_new_target_calibrates_and_writes_itself_alone(architecture: str) -> None:
    steering = study(architecture)
    first = steering.steer()
    steering.calibration["target_kl_nats"] = (0.005, 0.02, 0.4)
    second = steering.steer(first)
    assert (second.calibration.rows_reused, second.calibration.rows_computed) == (12, 6)
    assert {row.target_kl_nats for row in second.plan.to_generate} == {0.02}
    fresh = steering.steer()
    assert_same_tables(second, fresh)
    assert second.calibration.forward_tokens < fresh.calibration.forward_tokens


def test_one_changed_direction_computes_its_own_rows() -> None:
    steering = study()
    first = steering.steer()
    steering.directions[11] = unit_directions(steering.model, 1, seed=99)[10]
    second = steering.steer(first)
    assert (second.calibration.rows_reused, second.calibration.rows_computed) == (8, 4)
    assert {row.feature_id for row in second.plan.to_generate} == {11}
    assert_same_tables(second, steering.steer())
    assert not first.calibrations.filter(feature_id=11).equals(
        second.calibrations.filter(feature_id=11)
    )


def test_features_that_come_go_and_change_place() -> None:
    steering = study(n_features=3)
    first = steering.steer()
    every = dict(steering.directions)
    steering.directions = {12: every[12], 10: every[10]}
    with no_forward(steering.model):
        fewer = steering.steer(first)
    assert set(fewer.texts["feature_id"]) == {10, 12}
    assert fewer.calibrations.equals(first.calibrations.filter(pl.col("feature_id") != 11))
    steering.directions = every
    back = steering.steer(fewer)
    assert_same_tables(back, first)
    assert {row.feature_id for row in back.plan.to_generate} == {11}
    assert all(row.vector is not None for row in back.plan.to_generate), "base texts again"


def test_a_feature_under_a_new_id_keeps_its_rows() -> None:
    steering = study()
    first = steering.steer()
    steering.directions = {i + 90: d for i, d in steering.directions.items()}
    steering.own_tokens = {i + 90: tokens for i, tokens in steering.own_tokens.items()}
    with no_forward(steering.model):
        second = steering.steer(first)
    assert set(second.calibrations["feature_id"]) == {100, 101, 102}
    for table in ("calibrations", "texts"):
        renamed = getattr(first, table).with_columns(pl.col("feature_id") + 90)
        assert getattr(second, table).equals(renamed)


@pytest.mark.parametrize(
    "change",
    [{"max_new_tokens": 5}, {"top_k": 10}, {"top_p": 0.5}, {"temperature": 2.0}],
    ids=lambda change: next(iter(change)),
)
def test_other_sampling_writes_texts_anew_and_keeps_calibrations(change: dict) -> None:
    steering = study()
    first = steering.steer()
    steering.sampling = replace(steering.sampling, **change)
    second = steering.steer(first)
    assert second.calibration.rows_computed == second.calibration.forward_tokens == 0
    assert second.calibrations.equals(first.calibrations)
    assert second.plan.rows_reused == 0 and second.plan.rows_computed > 0
    assert second.texts.equals(steering.steer().texts)


def test_more_texts_and_another_seed_write_what_is_missing() -> None:
    steering = study()
    first = steering.steer()
    steering.n_texts = 4
    more = steering.steer(first)
    assert {row.text_index for row in more.plan.to_generate} == {3}
    steering.seed = 8
    shifted = steering.steer(more)
    # Text 1 of seed 7 and text 0 of seed 8 have one seed but other prompts.
    assert shifted.plan.rows_reused == 0
    assert shifted.calibration.rows_computed == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tolerance", 0.02),
        ("max_evaluations", 47),
        ("max_strength_ratio", 90.0),
        ("batch_rows", 32),
    ],
)
def test_other_calibration_settings_calibrate_anew(name: str, value: float) -> None:
    steering = study(n_features=1)
    first = steering.steer()
    steering.calibration[name] = value
    assert steering.steer(first).calibration.rows_reused == 0


def test_other_prompts_models_or_code_compute_everything() -> None:
    steering = study(n_features=1)
    first = steering.steer()
    for change in (
        {"prompts": {"I think": [5, 9, 34], "She said that": [4, 17, 50, 8, 30]}},
        {"made_by": ("code", "revision", "bfloat16")},
        {"made_by": ("other code", "revision", "float32")},
    ):
        second = replace(steering, **change).steer(first)
        assert second.calibration.rows_reused == 0, change
        changed_texts = second.plan.rows_computed
        assert changed_texts > 0, change
    own = replace(steering, own_tokens={10: [3]}).steer(first)
    assert own.calibration.rows_reused == 0 and own.plan.rows_computed == 0


def test_what_was_not_reached_is_a_result_and_what_failed_is_tried_again() -> None:
    steering = study(n_features=2)
    with torch.no_grad():
        locate_blocks(steering.model)[1].mlp.down_proj.weight[:, 3] = 0
    steering.directions[10] = torch.eye(len(steering.directions[10]))[3]
    first = steering.steer()
    missed = first.calibrations.filter(feature_id=10)
    assert set(missed["status"]) == {"not_reached"}
    texts = first.texts.filter(pl.col("feature_id") == 10, pl.col("sign") != "0")
    assert set(texts["status"]) == {"not_reached"} and texts["row_fingerprint"].is_null().all()
    with no_forward(steering.model):
        assert_same_tables(first, steering.steer(first))
    is_ten = pl.col("feature_id") == 10
    broken = first.calibrations.with_columns(
        status=pl.when(is_ten).then(pl.lit("failed")).otherwise("status")
    )
    mended = steering.steer(replace(first, calibrations=broken))
    assert mended.calibration.rows_computed == 4
    assert_same_tables(first, mended)


def test_an_empty_text_is_a_result() -> None:
    steering = study(n_features=1)
    first = steering.steer()
    empty = texts_frame(first.plan, ["" for _ in first.plan.to_generate])
    assert set(empty["status"]) == {"empty", "not_reached"}
    assert empty["text"].null_count() == len(empty)
    with no_forward(steering.model):
        second = steering.steer(replace(first, texts=empty))
    assert set(second.texts["status"]) == {"empty", "not_reached"}


def test_rows_from_before_fingerprints_are_computed_once_more() -> None:
    steering = study(n_features=1)
    first = steering.steer()
    old = replace(
        first,
        calibrations=first.calibrations.with_columns(row_fingerprint=pl.lit(None, pl.String)),
        texts=first.texts.with_columns(row_fingerprint=pl.lit(None, pl.String)),
    )
    second = steering.steer(old)
    assert second.calibration.rows_reused == second.plan.rows_reused == 0
    assert_same_tables(first, second)


def test_the_code_of_strengths_and_texts_knows_no_judge() -> None:
    for module in (CALIBRATION_MODULE, GENERATION_MODULE):
        code = imported_closure([module])
        assert module in code and "assets.activations.hooks" in code
        judging = {name for name in code if "judg" in name or "prompts" in name or "label" in name}
        assert not judging
    strengths = imported_closure([CALIBRATION_MODULE])
    assert "assets.steering.strength_search" in strengths
    assert "assets.steering.next_token_change" in strengths
