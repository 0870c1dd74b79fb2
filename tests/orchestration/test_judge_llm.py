"""A judge of its own: it is asked what judges, and another judge leaves what was written alone."""

import pytest
from answering_endpoint import AnsweringEndpoint
from nightly_study import NIGHTLY_STUDY, decisions, night, write_nightly_study
from platform_of_test import Platform

from orchestration.llm_estimate import JUDGING, LlmEstimator
from orchestration.planning import Planner
from resources.ledger import Ledger
from resources.model_resource import SubjectModelResource
from resources.study_files import StudiesResource, load_study
from resources.world import WorldAtOnce

pytestmark = pytest.mark.slow
PRICES = ("usd_per_million_prompt_tokens", "usd_per_million_completion_tokens")
WRITTEN = ("labels", "probe_sentences", "calibrations", "steered_texts")


def planned_calls(platform: Platform) -> float:
    study = load_study(platform.root / "studies" / "mini.yaml")
    studies = StudiesResource(folder=str(platform.root / "studies"))
    models = SubjectModelResource(cache_folder=str(platform.cache_folder))
    world = WorldAtOnce(Ledger(platform.lake), studies, models)
    estimator = LlmEstimator(study, platform.lake, world.llm_endpoint())
    planned = estimator.with_costs(list(Planner(world).study(study)))
    return sum(one.costs.get("llm_calls") or 0 for one in planned)


def test_another_judge_is_asked_what_judges_and_nothing_else(
    platform: Platform, endpoint: AnsweringEndpoint
) -> None:
    write_nightly_study(platform.root / "studies")
    night(platform)
    assert {request["model"] for request in endpoint.requests} == {"some-model"}
    written = {table: platform.lake.query(f"FROM {table} ORDER BY ALL") for table in WRITTEN}
    n_before = len(endpoint.requests)

    # 2 USD a call, where `llm` takes 1.
    prices = {name: 2 * NIGHTLY_STUDY["llm"][name] for name in PRICES}
    judge = {**NIGHTLY_STUDY["llm"], "model": "another-model", **prices}
    write_nightly_study(platform.root / "studies", judge_llm=judge)
    n_planned = planned_calls(platform)
    ledger = night(platform)
    sent = endpoint.requests[n_before:]
    assert {request["model"] for request in sent} == {"another-model"}
    asked = platform.lake.query("FROM llm_calls WHERE llm_model = 'another-model'")
    assert set(asked["prompt_name"]) <= JUDGING
    assert len(sent) == len(asked.unique("request_hash"))
    assert n_planned == len(sent)
    assert ledger["usd"].sum() == pytest.approx(2 * len(sent))
    made = ledger.filter(decision="computed")
    assert set(made["asset"]) >= {"labels", "steering"}
    assert "activations" not in set(made["asset"]) and made["forward_tokens"].sum() == 0
    because = ledger.filter(asset="steering")["reason"].item()
    assert because == "judge_llm model some-model → another-model"
    for table, before in written.items():
        assert platform.lake.query(f"FROM {table} ORDER BY ALL").equals(before), table

    # As the judge was the LLM itself before, its answers are kept.
    n_before = len(endpoint.requests)
    write_nightly_study(platform.root / "studies")
    night(platform)
    assert endpoint.requests[n_before:] == []
    assert set(decisions(platform)["decision"]) <= {"computed", "reused"}
