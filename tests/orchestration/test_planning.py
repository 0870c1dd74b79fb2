"""A plan says for every asset partition what a run would do, from planted ledger states."""

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from any_rows import any_rows
from planted_ledger import PlantedWorld, planted_states
from rich.console import Console

from assets.activations.config import ModelConfig
from assets.labels.tables import LABELS
from assets.recipe import partition_text
from orchestration import show_plan as plan_command
from orchestration.planning import Planned, Planner, totals
from orchestration.recipes import OF_FIT, OF_SITE, OF_SITE_FITS, OF_STUDY, specs_of
from orchestration.show_plan import groups_of, show_plan
from resources.lake import Lake
from resources.lake_commit import Commit
from resources.ledger import MOST_ATTEMPTS, Entry, Ledger
from resources.study import Study
from resources.study_files import StudiesResource
from resources.world import WorldAtOnce

SITE = "mini:smollm2-135m-instruct@L3.mlp_hidden"
FIT = f"{SITE} | snmf-k008"
COMMIT = Commit("labels", FIT, "run-1")
N_ASSETS = len(OF_STUDY) + len(OF_SITE) + 2 * len(OF_FIT) + len(OF_SITE_FITS)
STUDY: dict[str, Any] = {
    "name": "mini",
    "corpus": {"path": "documents.jsonl"},
    "models": [{"source": "smollm2-135m-instruct", "layers": [3]}],
    "fits": [{"method": "snmf", "rank": 8}, {"method": "random", "rank": 8}],
    "nightly": {"budget": {"llm_calls": 40, "minutes": 30}},
}


class WorldWithRevision(WorldAtOnce):
    """The model's revision is given, and nothing looked for on this machine."""

    def model_revision(self, model: ModelConfig) -> str:
        return "r1"


class Place:
    """A lake, a folder of studies, and the ledger states of a whole run of the study."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "studies").mkdir()
        self.write_documents("first")
        self.write_study(STUDY)
        self.lake = Lake(root / "lake")
        self.ledger = Ledger(self.lake)

    def write_study(self, content: Mapping[str, Any]) -> None:
        (self.root / "studies" / "mini.yaml").write_text(yaml.safe_dump(dict(content)))

    def write_documents(self, text: str) -> None:
        (self.root / "studies" / "documents.jsonl").write_text(f'{{"text": "{text}"}}\n')

    @property
    def study(self) -> Study:
        return StudiesResource(folder=str(self.root / "studies")).study("mini")

    def plant(self, change: Callable[[Entry], Entry] = lambda entry: entry) -> None:
        states = planted_states(self.study, PlantedWorld(self.root / "studies"))
        self.ledger.append(map(change, states), run_id="run-1")

    def plan(self) -> dict[tuple[str, str], Planned]:
        studies = StudiesResource(folder=str(self.root / "studies"))
        planner = Planner(WorldWithRevision(self.ledger, studies, None))
        return {(one.asset, one.partition): one for one in planner.study(self.study)}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def decisions(plan: Mapping[tuple[str, str], Planned], decision: str) -> set[tuple[str, str]]:
    return {key for key, one in plan.items() if one.decision == decision}


def test_before_the_first_run_everything_is_made_and_nothing_is_known_of_costs(
    place: Place,
) -> None:
    plan = place.plan()
    assert len(plan) == N_ASSETS
    assert {(one.decision, one.reason) for one in plan.values()} == {("compute", "first time")}
    seconds = totals(plan.values())["seconds"]
    assert (seconds.known, seconds.n_known, seconds.n_unknown) == (0, 0, N_ASSETS)
    # Where the model is not run and no LLM asked, that much is known.
    assert plan["corpus", "mini"].costs == {"forward_tokens": 0, "llm_calls": 0, "usd": 0}


def test_nothing_changed_is_reused(place: Place) -> None:
    place.plant()
    plan = place.plan()
    assert len(decisions(plan, "reuse")) == N_ASSETS
    assert {one.reason for one in plan.values()} == {"nothing changed"}


def test_a_setting_makes_its_stage_run_and_what_reads_it_maybe(place: Place) -> None:
    place.plant()
    place.write_study({**STUDY, "labels": {"max_features": 8}})
    plan = place.plan()
    assert decisions(plan, "compute") == {("labels", FIT)}
    assert plan["labels", FIT].reason == "labels.max_features null → 8"
    maybe = decisions(plan, "maybe")
    reading = ("detection", "steering", "steering_summaries", "judge_free_scores", "catalogue")
    assert maybe == {(name, FIT) for name in reading} | {("comparison", SITE)}
    assert plan["detection", FIT].reason == "if labels comes out different"
    assert plan["labels", FIT].costs == {
        "seconds": 2.0,
        "forward_tokens": 0,
        "llm_calls": 3,
        "usd": 0.5,
    }


def test_a_changed_corpus_may_change_everything_but_runs_only_the_reading(place: Place) -> None:
    place.plant()
    place.write_documents("second")
    plan = place.plan()
    assert decisions(plan, "compute") == {("corpus", "mini")}
    assert plan["corpus", "mini"].reason.startswith("corpus_files ")
    assert ("activations", SITE) in decisions(plan, "maybe")
    assert len(decisions(plan, "maybe")) == N_ASSETS - 1


def test_content_that_came_out_different_upstream_is_computed_with_the_reason(
    place: Place,
) -> None:
    place.plant()
    states = planted_states(
        place.study,
        PlantedWorld(place.root / "studies", contents={("labels", FIT): "others"}),
    )
    (labels,) = [e for e in states if e.asset == "labels" and e.partition == FIT]
    place.ledger.append([labels], run_id="run-2")
    plan = place.plan()
    readers = ("detection", "steering", "judge_free_scores", "catalogue")
    made = {(name, FIT) for name in readers}
    # The comparison looks up which features were labelled.
    assert decisions(plan, "compute") == made | {("comparison", SITE)}
    assert {plan[key].reason for key in made} == {"labels changed"}
    assert plan["comparison", SITE].reason == f"labels of {FIT.split(' | ')[1]} changed"


@pytest.mark.parametrize("attempt", range(1, MOST_ATTEMPTS + 1))
def test_failed_rows_are_retried_up_to_a_number_of_attempts(place: Place, attempt: int) -> None:
    def with_failures(entry: Entry) -> Entry:
        is_it = entry.asset == "labels" and entry.partition == FIT
        return replace(entry, rows_to_retry=4, attempt=attempt) if is_it else entry

    place.plant(with_failures)
    plan = place.plan()
    if attempt == MOST_ATTEMPTS:
        assert len(decisions(plan, "reuse")) == N_ASSETS
    else:
        assert decisions(plan, "compute") == {("labels", FIT)}
        assert plan["labels", FIT].reason == (
            f"4 rows failed in a way that may pass; attempt {attempt + 1}"
        )


def test_rows_deleted_by_hand_are_made_again_and_nothing_else(place: Place) -> None:
    rows = any_rows(LABELS, 6, seed=0)
    fits = [(SITE, f"{method}-k008") for method in ("snmf", "random")]
    for site, fit in fits:
        place.lake.replace({LABELS: rows}, {"site": site, "fit": fit}, COMMIT)
    states = planted_states(
        place.study, PlantedWorld(place.root / "studies"), {LABELS.name: len(rows)}
    )
    place.ledger.append(states, run_id="run-1")
    assert len(decisions(place.plan(), "reuse")) == N_ASSETS

    place.lake.connect().execute("DELETE FROM labels WHERE feature_id > 3 AND fit LIKE 'snmf%'")
    plan = place.plan()
    assert decisions(plan, "compute") == {("labels", FIT)}
    assert plan["labels", FIT].reason == "6 rows were written, 4 are there"
    assert ("detection", FIT) in decisions(plan, "maybe")
    place.lake.connect().execute("DELETE FROM labels WHERE fit LIKE 'snmf%'")
    assert place.plan()["labels", FIT].reason == "6 rows were written, 0 are there"

    # Back again, and with others beside them.
    place.lake.replace({LABELS: rows}, dict(zip(("site", "fit"), fits[0], strict=True)), COMMIT)
    assert len(decisions(place.plan(), "reuse")) == N_ASSETS
    more = any_rows(LABELS, 8, seed=0).tail(2)
    place.lake.append(
        {LABELS: more.with_columns(site=pl.lit(SITE), fit=pl.lit(fits[0][1]))}, COMMIT
    )
    assert place.plan()["labels", FIT].reason == "6 rows were written, 8 are there"


def test_rows_are_counted_again_where_a_run_has_written(place: Place) -> None:
    place.plant()
    studies = StudiesResource(folder=str(place.root / "studies"))
    planner = Planner(WorldWithRevision(place.ledger, studies, None))
    assert all(one.decision == "reuse" for one in planner.study(place.study))
    rows = any_rows(LABELS, 6, seed=0)
    place.lake.replace({LABELS: rows}, {"site": SITE, "fit": "snmf-k008"}, COMMIT)
    states = planted_states(
        place.study, PlantedWorld(place.root / "studies"), {LABELS.name: len(rows)}
    )
    (labels,) = [e for e in states if (e.asset, e.partition) == ("labels", FIT)]
    place.ledger.append([labels], run_id="run-2")
    (spec,) = [spec for spec in specs_of(place.study) if partition_text(spec) == FIT]
    planner.read_again(spec)
    assert all(one.decision == "reuse" for one in planner.study(place.study))


def test_a_missing_file_blocks_what_reads_it(place: Place) -> None:
    place.plant()
    (place.root / "studies" / "documents.jsonl").unlink()
    plan = place.plan()
    assert decisions(plan, "blocked") == {("corpus", "mini")}
    assert "no such file or folder" in plan["corpus", "mini"].reason


def test_a_new_fit_costs_what_the_others_took(place: Place) -> None:
    place.plant()
    place.write_study({**STUDY, "fits": [*STUDY["fits"], {"method": "snmf", "rank": 4}]})
    plan = place.plan()
    new = decisions(plan, "compute")
    of_fit = {(recipe.name, f"{SITE} | snmf-k004") for recipe in OF_FIT}
    of_site = {(recipe.name, SITE) for recipe in OF_SITE_FITS}
    assert new == of_fit | of_site
    assert len(decisions(plan, "reuse")) == N_ASSETS - len(of_site)
    total = totals(plan[key] for key in new)
    assert total["seconds"].known == 2.0 * len(new)
    assert total["llm_calls"].known == 9 and total["usd"].known == 1.5


def printed(study: Study, plan: Mapping[Any, Planned], **options: bool) -> str:
    console = Console(width=260, record=True, file=io.StringIO())
    show_plan(console, study, list(plan.values()), **options)
    return console.export_text()


def test_the_table_collapses_partitions_and_gives_both_totals_and_the_budget(place: Place) -> None:
    place.plant()
    place.write_study({**STUDY, "labels": {"seed": 1}})
    plan = place.plan()
    text = printed(place.study, plan)
    assert "labels.seed 0 → 1" in text and "2 partitions" in text and FIT not in text
    rows = {
        line.split("│")[1].strip(): line.split("│")[2:-1]
        for line in text.splitlines()
        if line.startswith("│ at") or line.startswith("│ budget")
    }
    numbers = {name: [cell.strip() for cell in cells] for name, cells in rows.items()}
    # Two fits' labels; with them detection, steering, its summaries and judge-free scores, and the
    # catalogue; and the comparison of both.
    # Tokens are llm_estimate.py's, which this plan was not given to.
    assert numbers["at least"] == ["4", "0", "6", "?", "?", "1"]
    assert numbers["at most"] == ["26", "600", "18", "?", "?", "3"]
    assert numbers["budget of a night"] == ["1,800", "any", "40", "any", "any", "any"]
    assert f"of {N_ASSETS} asset partitions 2 to compute" in text
    assert f"{N_ASSETS - 2 - 11} reused" in text
    each = printed(place.study, plan, is_each_shown=True)
    assert FIT in each and "2 partitions" not in each


def test_unknown_costs_are_question_marks(place: Place) -> None:
    place.plant(lambda entry: replace(entry, usd=None) if FIT in entry.partition else entry)
    place.write_study({**STUDY, "labels": {"seed": 1}})
    plan = place.plan()
    (labels,) = [g for g in groups_of(list(plan.values())) if g[0].asset == "labels"]
    assert totals(labels)["usd"].n_unknown == 1
    assert "0.5 + ?" in printed(place.study, plan)


def test_make_plan_of_a_place_without_a_lake_leaves_none(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("FEATURELAKE_STUDIES", str(place.root / "studies"))
    monkeypatch.setenv("FEATURELAKE_LAKE", str(tmp_path / "none"))
    monkeypatch.setattr(plan_command, "WorldAtOnce", WorldWithRevision)
    assert plan_command.main({"STUDY": "mini"}) == 0
    assert f"of {N_ASSETS} asset partitions {N_ASSETS} to compute" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()
    assert plan_command.main({"STUDY": "other"}) == 2
    assert "no study named 'other'" in capsys.readouterr().out
