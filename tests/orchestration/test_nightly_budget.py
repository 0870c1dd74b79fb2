"""A night stops at its budget, says what it left, and the nights together equal one long run."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from answering_endpoint import AnsweringEndpoint
from mini_study import MINI_STUDY
from nightly_study import ASSETS, CALLS, contents, decisions, night, write_nightly_study
from platform_of_test import Platform

from assets.stage_run import StageRun
from orchestration.data_dictionary import all_tables
from orchestration.jobs import MainJobConfig
from orchestration.recipes import OF_FIT
from orchestration.run_study import limits_of_run
from resources import call_budget
from resources.night_config import BudgetConfig
from resources.study import Study
from resources.study_files import StudyError, load_study

pytestmark = pytest.mark.slow


def test_nights_within_a_budget_equal_one_run_without(
    platform: Platform, endpoint: AnsweringEndpoint, tmp_path: Path
) -> None:
    studies = platform.root / "studies"
    write_nightly_study(studies)
    (tmp_path / "twin").mkdir()
    with dg.DagsterInstance.ephemeral(str(tmp_path / "twin")) as instance:
        whole = Platform(tmp_path / "twin", instance, platform.cache_folder)
        write_nightly_study(whole.root / "studies")
        assert whole.materialize().success
        wanted, calls = contents(whole), sorted(endpoint.take_requests())
    assert len(calls) == CALLS

    write_nightly_study(studies, budget={"llm_calls": 5})
    sent, n_nights = [], 0
    while not n_nights or "over_budget" in rows["decision"]:
        rows = night(platform)
        n_nights += 1
        of_night = endpoint.take_requests()
        sent += of_night
        assert len(of_night) <= 5
        assert rows["llm_calls_made"].sum() == len(of_night)
        left = rows.filter(decision="over_budget")
        if n_nights == 1:
            assert left["asset"].to_list() == [
                "steering",
                "catalogue",
                "comparison",
                "judge_free_scores",
                "steering_summaries",
            ]
        assert left["reason"].str.contains("budget").all()
        assert rows.filter(decision="failed").is_empty()
        for table in ("calibrations", "steered_texts", "steering_scores", "features"):
            # Nothing of a stage that was stopped is written.
            assert (table in {key[2] for key in contents(platform)}) == left.is_empty(), table
    assert n_nights == 3
    assert sorted(sent) == calls
    assert contents(platform) == wanted
    assert night(platform)["decision"].to_list() == ["reused"] * ASSETS
    assert endpoint.take_requests() == []


def test_after_the_last_minute_no_asset_of_a_stage_is_begun(
    platform: Platform, endpoint: AnsweringEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The minutes are over while the stage that makes a fit's features is at `contexts`."""
    late = 0.0
    clock = SimpleNamespace(time=lambda: time.time() + late)
    monkeypatch.setattr(call_budget, "time", clock)
    write = StageRun.write

    def write_and_be_late(run: StageRun, *args: Any, **kwargs: Any) -> Iterator[Any]:
        nonlocal late
        late = 3600.0 if run.recipe.name == "contexts" else late
        return write(run, *args, **kwargs)

    write_nightly_study(platform.root / "studies", budget={"minutes": 30})
    with monkeypatch.context() as slow:
        slow.setattr(StageRun, "write", write_and_be_late)
        rows = night(platform)
    made = set(rows.filter(decision="computed")["asset"])
    left = rows.filter(decision="over_budget")
    assert {"corpus", "activations", "factorization", "contexts"} <= made
    assert {"labels", "steering", "catalogue", "comparison"} <= set(left["asset"])
    assert left["reason"].str.contains("budget").all()
    assert made.isdisjoint(left["asset"]) and len(made) + left["asset"].n_unique() == ASSETS
    assert rows.filter(decision="failed").is_empty()
    endpoint.take_requests()

    late = 0.0
    rows = night(platform)
    assert set(rows.filter(decision="computed")["asset"]) == set(left["asset"])
    assert len(endpoint.take_requests()) == CALLS


def test_what_one_asset_has_spent_is_counted_over_its_batches(
    platform: Platform, endpoint: AnsweringEndpoint
) -> None:
    write_nightly_study(platform.root / "studies", budget={"llm_calls": 2})
    rows = night(platform)
    assert len(endpoint.take_requests()) == 2  # the label, and one of the calls that score it
    stopped = rows.filter(asset="labels")
    assert stopped["decision"].to_list() == ["over_budget"]
    assert stopped["llm_calls_made"].to_list() == [2]
    assert stopped["usd"].to_list() == [pytest.approx(2 * 1.0)]
    assert "1 of 2 calls were made and are kept" in stopped["reason"][0]
    # The stage's run that was stopped is no failure in the UI.
    statuses = Counter(run.status for run in platform.instance.get_runs())
    assert statuses[dg.DagsterRunStatus.CANCELED] == 1
    assert statuses[dg.DagsterRunStatus.FAILURE] == 0
    left = rows.filter(decision="over_budget")["asset"].to_list()
    assert left == [
        "labels",
        "catalogue",
        "comparison",
        "detection",
        "judge_free_scores",
        "steering",
        "steering_summaries",
    ]


def test_a_budget_in_usd_stops_too(platform: Platform, endpoint: AnsweringEndpoint) -> None:
    write_nightly_study(platform.root / "studies", budget={"usd": 3.5})
    rows = night(platform)
    assert len(endpoint.take_requests()) == 4  # the fourth overdraws it
    assert rows["usd"].sum() == pytest.approx(4.0)
    assert "the budget in USD is spent" in rows.filter(asset="detection")["reason"][0]


def test_without_a_call_left_all_that_needs_no_llm_is_made(
    platform: Platform, endpoint: AnsweringEndpoint
) -> None:
    write_nightly_study(platform.root / "studies", budget={"llm_calls": 0})
    rows = night(platform)
    assert endpoint.take_requests() == []
    left = set(rows.filter(decision="over_budget")["asset"])
    assert left == {recipe.name for recipe in OF_FIT if recipe.uses_llm} | {
        "steering_summaries",
        "judge_free_scores",
        "catalogue",
        "comparison",
    }
    made = rows.filter(decision="computed")["asset"]
    assert len(made) + len(left) == ASSETS
    # Another night without a call: nothing is left but what needs them.
    assert set(night(platform)["decision"]) == {"reused", "over_budget"}


def test_a_run_by_hand_takes_limits_of_its_own(
    platform: Platform, endpoint: AnsweringEndpoint
) -> None:
    write_nightly_study(platform.root / "studies", budget={"llm_calls": 1000})
    assert platform.materialize(within_budget=True, llm_calls=2).success
    assert len(endpoint.take_requests()) == 2
    assert "over_budget" in set(decisions(platform)["decision"])
    assert platform.materialize(minutes=0).success
    assert endpoint.take_requests() == []


def test_limits_of_a_run_are_read_from_the_command_line() -> None:
    given = {"LLM_CALLS": "20", "USD": "0.5", "MINUTES": "", "STUDY": "demo"}
    assert limits_of_run(given) == {"llm_calls": 20, "usd": 0.5}
    for wrong in ({"LLM_CALLS": "2.5"}, {"USD": "-1"}, {"MINUTES": "ten"}):
        ((name, value),) = wrong.items()
        with pytest.raises(StudyError, match=f"{name}={value} found; expected a"):
            limits_of_run(wrong)


def test_a_limit_in_usd_needs_prices() -> None:
    study = Study.model_validate(
        {"name": "s", **MINI_STUDY, "llm": {"model": "some-model"}}, strict=False
    )
    with pytest.raises(ValueError, match="needs the prices of the LLM"):
        MainJobConfig(study="s", usd=1.0).budget(study)
    assert MainJobConfig(study="s", llm_calls=3).budget(study) == BudgetConfig(llm_calls=3)


def test_without_a_minute_nothing_is_run(platform: Platform, endpoint: AnsweringEndpoint) -> None:
    write_nightly_study(platform.root / "studies", budget={"minutes": 0})
    rows = night(platform)
    assert len(rows) == ASSETS
    assert set(rows["decision"]) == {"over_budget"}
    assert set(rows["reason"]) == {"the budget's minutes are over"}
    assert {t.name for t in all_tables() if platform.lake.count(t)} == {"run_ledger"}
    assert endpoint.take_requests() == []
    assert len(platform.instance.get_runs()) == 1
    # What the same lake is asked for without a budget is made.
    assert platform.materialize().success
    assert decisions(platform)["decision"].to_list().count("computed") == ASSETS


def test_a_budget_in_usd_needs_prices(tmp_path: Path) -> None:
    write_nightly_study(tmp_path, budget={"usd": 1.0})
    text = (tmp_path / "mini.yaml").read_text()
    unpriced = tmp_path / "unpriced.yaml"
    unpriced.write_text("\n".join(li for li in text.splitlines() if "usd_per_million" not in li))
    assert load_study(tmp_path / "mini.yaml").nightly.budget.usd == 1.0
    with pytest.raises(StudyError, match="usd_per_million_prompt_tokens"):
        load_study(unpriced)
