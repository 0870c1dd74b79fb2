"""What a plan says of LLM calls beforehand is what a run then takes, within a tenth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl
import pytest
from counting_llm import environment_of
from mini_study import MINI_STUDY, QUICK_STUDY, write_quick_study
from misbehaving_endpoint import Endpoint
from platform_of_test import Platform
from token_counting_llm import token_counting_llm

from orchestration.llm_estimate import LlmEstimator
from orchestration.planning import Planner
from orchestration.show_plan import total_of
from resources.ledger import Ledger
from resources.model_resource import SubjectModelResource
from resources.study_files import StudiesResource
from resources.world import WorldAtOnce

pytestmark = pytest.mark.slow
PRICES = {"usd_per_million_prompt_tokens": 1.0, "usd_per_million_completion_tokens": 4.0}
# The quick study with features that leave documents without them: in its own 30 short documents the
# strongest fire everywhere, and questions on negatives that are not there are counted beforehand.
CHANGES = {
    "llm": {"model": "fake", **PRICES},
    "corpus": MINI_STUDY["corpus"],
    "labels": MINI_STUDY["labels"],
    "fits": [
        MINI_STUDY["fits"][0] | {"coefficient_penalty": 0.3},
        QUICK_STUDY["fits"][1],
    ],
}
NAMES = ("llm_calls", "prompt_tokens", "completion_tokens", "usd")


@pytest.fixture
def endpoint(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    with token_counting_llm(platform.cache_folder) as running:
        for name, value in environment_of(running).items():
            monkeypatch.setenv(name, value)
        yield running


def estimate(platform: Platform) -> dict[str, dict[str, float]]:
    """Costs said beforehand, by asset."""
    studies = StudiesResource(folder=str(platform.root / "studies"))
    models = SubjectModelResource(cache_folder=str(platform.cache_folder))
    world = WorldAtOnce(Ledger(platform.lake), studies, models)
    study = studies.study("mini")
    planned = LlmEstimator(study, platform.lake, world.llm_endpoint()).with_costs(
        list(Planner(world).study(study))
    )
    by_asset: dict[str, dict[str, float]] = {}
    for asset in ("labels", "detection", "steering"):
        ours = [one for one in planned if one.asset == asset and one.is_dirty]
        assert all(total_of(ours, name).n_unknown == 0 for name in NAMES[:3])
        by_asset[asset] = {name: total_of(ours, name).known for name in NAMES}
    return by_asset


def used(platform: Platform, before: pl.DataFrame | None) -> dict[str, dict[str, float]]:
    """The same as a run then took, from its calls that were not in the lake before."""
    calls = calls_of(platform).filter(~pl.col("was_reused"))
    if before is not None:
        calls = calls.join(before, on=["site", "fit", "request_hash"], how="anti")
    return {
        str(stage): {
            "llm_calls": len(rows),
            "prompt_tokens": rows["prompt_tokens"].sum(),
            "completion_tokens": rows["completion_tokens"].sum(),
            "usd": rows["usd"].sum(),
        }
        for (stage,), rows in calls.group_by("stage")
    }


def calls_of(platform: Platform) -> pl.DataFrame:
    return platform.lake.query("SELECT * FROM llm_calls")


def total(costs: Mapping[str, Mapping[str, float]], name: str) -> float:
    return sum(of_stage[name] for of_stage in costs.values())


def check(said: Mapping[str, Any], took: Mapping[str, Any]) -> None:
    tokens = {
        name: [total(costs, "prompt_tokens") + total(costs, "completion_tokens")]
        for name, costs in (("said", said), ("took", took))
    }
    assert tokens["said"] == pytest.approx(tokens["took"], rel=0.1), (said, took)
    assert total(said, "usd") == pytest.approx(total(took, "usd"), rel=0.1)
    assert total(said, "llm_calls") == pytest.approx(total(took, "llm_calls"), rel=0.1)


def test_a_first_run_and_one_layer_more_take_what_the_plan_said(
    platform: Platform, endpoint: Endpoint
) -> None:
    write_quick_study(platform.root / "studies", **CHANGES)
    said = estimate(platform)
    assert endpoint.requests == []
    assert platform.materialize().success
    first = calls_of(platform)
    check(said, used(platform, None))

    # Nothing is left to ask for.
    assert total(estimate(platform), "llm_calls") == 0
    # One sentence more for each of the three labelled features; the cache has the others.
    more = MINI_STUDY["detection"] | {"n_activating": MINI_STUDY["detection"]["n_activating"] + 1}
    write_quick_study(platform.root / "studies", **CHANGES, detection=more)
    said = estimate(platform)
    assert {asset: costs["llm_calls"] for asset, costs in said.items()} == {
        "labels": 0,
        "detection": 3,
        "steering": 0,
    }
    models = [QUICK_STUDY["models"][0] | {"layers": [26, 22]}]
    write_quick_study(platform.root / "studies", **CHANGES, models=models)
    said = estimate(platform)
    assert platform.materialize().success
    check(said, used(platform, first))
