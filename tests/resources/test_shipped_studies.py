"""The study files that come with the project load, and no plan fetches what they name."""

from collections import Counter
from pathlib import Path

import huggingface_hub
import pytest

from orchestration.planning import Planned, Planner
from resources.lake import Lake
from resources.ledger import Ledger
from resources.model_resource import SubjectModelResource
from resources.model_sources import SubjectModelError, source_revision
from resources.study import Study
from resources.study_files import StudiesResource
from resources.world import WorldAtOnce

STUDIES = StudiesResource(folder=str(Path(__file__).parents[2] / "studies"))
PAPER = ("paper_gpt2_small", "paper_gpt2_small_tree", "paper_gemma2_2b", "paper_llama31_8b")
NEEDS_THE_MODEL = {"activations", "faithfulness", "detection", "steering", "vocab_projection"}


@pytest.fixture
def hub_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A hub that does not answer, and what it is asked; nothing may be fetched from it."""
    asked: list[str] = []

    def does_not_answer(api: object, source: str, **options: object) -> object:
        asked.append(source)
        raise ConnectionError("no network here")

    def fetched(*_: object, **__: object) -> object:
        raise AssertionError("a plan fetches nothing")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", does_not_answer)
    for name in ("snapshot_download", "hf_hub_download"):
        monkeypatch.setattr(huggingface_hub, name, fetched)
    return asked


def plan(study: Study, root: Path) -> list[Planned]:
    lake = Lake(root / "lake")
    world = WorldAtOnce(Ledger(lake), STUDIES, SubjectModelResource(cache_folder=str(root)))
    planned = list(Planner(world).study(study))
    lake.close()
    return planned


def test_every_study_that_comes_with_the_project_loads_and_no_night_starts_by_itself() -> None:
    studies, problems = STUDIES.readable()
    assert problems == []
    assert {*PAPER, "two_models", "demo"} <= {study.name for study in studies}
    assert all(study.nightly.switch == "off" for study in studies)
    for study in studies:
        file = Path(STUDIES.folder) / f"{study.name}.yaml"
        assert file.is_file(), f"study {study.name} stands in a file of another name"
        assert file.read_text().startswith("# "), f"{file.name} begins with what it is for"


@pytest.mark.parametrize("name", PAPER)
def test_a_model_that_cannot_be_had_blocks_with_a_reason_and_is_asked_for_once(
    name: str, tmp_path: Path, hub_calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    study = STUDIES.study(name)
    planned = plan(study, tmp_path)
    (model,) = study.models
    assert hub_calls == [model.source]
    blocked = [one for one in planned if one.decision == "blocked"]
    assert {one.asset for one in blocked} >= NEEDS_THE_MODEL
    assert all(
        model.source in one.reason and "not on this machine" in one.reason for one in blocked
    )
    # What needs no model is planned as ever.
    assert Counter(one.decision for one in planned if one.asset == "corpus") == {"compute": 1}


def test_a_cached_model_is_known_by_its_commit_without_the_hub(
    tmp_path: Path, hub_calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "snapshots" / "0123abc" / "config.json"
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: str(cached))
    assert source_revision("openai-community/gpt2", None, tmp_path) == "0123abc"
    assert hub_calls == ["openai-community/gpt2"]


def test_what_is_no_model_at_all_says_what_is_expected(
    tmp_path: Path, hub_calls: list[str]
) -> None:
    with pytest.raises(SubjectModelError, match=r"no/such/folder.*expected.*folder"):
        source_revision(str(tmp_path / "no/such/folder"), None, tmp_path)
    assert len(hub_calls) == 1


def test_the_papers_settings_are_those_of_the_paper() -> None:
    for name in ("paper_gpt2_small", "paper_gemma2_2b", "paper_llama31_8b"):
        study = STUDIES.study(name)
        assert study.steering.target_kl_nats == (0.025, 0.05, 0.1, 0.15, 0.25, 0.35, 0.5)
        assert study.steering.signs == ("+", "-")
        assert (study.steering.n_texts, study.steering.max_new_tokens) == (8, 50)
        sampling = (study.steering.top_k, study.steering.top_p, study.steering.temperature)
        assert sampling == (30, 0.3, 1.0)
        assert study.steering.neutral_prompts == ("I think that",)
        # Each text against both labels, the output one by sign.
        assert study.steering.judged_labels == ("input", "output")
        assert study.labels.kinds == ("input", "output", "output_minus")
        assert (study.detection.n_activating, study.detection.n_neutral) == (5, 5)
        # The labeller sees the ten strongest contexts, and nothing else.
        assert (study.evidence.n_top, study.evidence.n_sampled) == (10, 0)
        shown = (study.labels.n_contexts_shown, study.labels.n_near_misses_shown)
        assert shown == (10, 0)
        of_paper = study.fits[0]
        assert (of_paper.method, of_paper.solver, of_paper.rank) == ("snmf", "multiplicative", 100)
        assert of_paper.keep_fraction == (0.05 if "gpt2" in name else 0.01)
        controls = {"random", "permuted", "covariance"}
        assert {fit.method for fit in study.fits} >= {"sae", "diff_means", *controls}
    tree = STUDIES.study("paper_gpt2_small_tree")
    assert (tree.fits[0].rank, tree.hierarchy.ranks) == (400, (200, 100, 50))
