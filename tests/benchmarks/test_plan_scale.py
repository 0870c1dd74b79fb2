"""How long `make plan` takes for 2,000 (site, fit) partitions of a synthetic study.

The ledger's states are written in bulk, as if every partition had been made. Planned are: nothing
changed, a prompt changed, and the corpus changed. Printed: seconds of each, ledger read included.
"""

import io
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from benchmarks.planted_wide_lake import n_rows, plant_rows
from planted_ledger import PlantedWorld, planted_states
from rich.console import Console

from assets.labels import prompts
from orchestration.llm_estimate import LlmEstimator
from orchestration.planning import Planned, Planner
from orchestration.recipes import specs_of
from orchestration.show_plan import show_plan, total_of
from resources.lake import Lake
from resources.ledger import Ledger
from resources.model_resource import SubjectModelResource
from resources.study import FitSpec
from resources.study_files import StudiesResource
from resources.world import WorldAtOnce

pytestmark = pytest.mark.benchmark
N_LAYERS, N_FITS, N_OTHER_LAYERS = 100, 20, 40
N_FEATURES = 4
ASKING = ("labels", "detection", "steering")
MOST_SECONDS = 30.0


def write_tiny_model(folder: Path) -> None:
    """A GPT-2 of width 8: a plan asks only what its files' contents are."""
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {
        "n_layer": N_LAYERS + N_OTHER_LAYERS,
        "n_embd": 8,
        "n_head": 2,
        "vocab_size": 64,
        "n_positions": 32,
    }
    config = GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(folder)


def write_study(root: Path, first_layer: int = 0, **changes: Any) -> None:
    layers = list(range(first_layer, first_layer + N_LAYERS))
    study = {
        "name": "wide",
        "corpus": {"path": "documents.jsonl"},
        "models": [{"source": str(root / "model"), "name": "tiny", "layers": layers}],
        "fits": [{"method": "snmf", "rank": rank} for rank in range(2, 2 + N_FITS)],
    }
    (root / "studies").mkdir(exist_ok=True)
    (root / "studies" / "wide.yaml").write_text(yaml.safe_dump(study | changes))


def write_documents(root: Path, n: int) -> None:
    lines = [json.dumps({"text": f"Sentence {i}."}) for i in range(n)]
    (root / "studies" / "documents.jsonl").write_text("\n".join(lines))


class Planning:
    """Times everything that `make plan` does after its imports, up to showing the plan."""

    def __init__(self, root: Path, report: Callable[[str], None]) -> None:
        self.root = root
        self.report = report
        self.studies = StudiesResource(folder=str(root / "studies"))
        self.models = SubjectModelResource(cache_folder=str(root / "cache"))

    def made(self, n_rows: Mapping[str, int] | None = None) -> list[FitSpec]:
        """Leaves a lake whose ledger says that the study as it stands was made; its fits."""
        study = self.studies.study("wide")
        revision = self.models.revision(study.models[0])
        world = PlantedWorld(self.root / "studies", revision=revision)
        states = planted_states(study, world, n_rows)
        lake = Lake(self.root / "lake")
        Ledger(lake).append(states, run_id="run-1")
        lake.close()
        return [spec for spec in specs_of(study) if isinstance(spec, FitSpec)]

    def plan(self, what: str, lake_folder: str = "lake") -> list[Planned]:
        began = time.perf_counter()
        study = self.studies.study("wide")
        lake = Lake(self.root / lake_folder)
        world = WorldAtOnce(Ledger(lake), self.studies, self.models)
        estimator = LlmEstimator(study, lake, world.llm_endpoint())
        planned = list(Planner(world).study(study))
        until_costs = time.perf_counter() - began
        planned = estimator.with_costs(planned)
        show_plan(Console(file=io.StringIO()), study, planned)
        seconds = time.perf_counter() - began
        lake.close()
        counts = Counter(one.decision for one in planned)
        calls = total_of([one for one in planned if one.is_dirty], "llm_calls")
        self.report(
            f"{what}: {seconds:.1f} s (target {MOST_SECONDS:.0f} s), without the estimate "
            f"{until_costs:.1f} s; {dict(counts)}; {calls.known:,.0f} LLM calls, "
            f"{calls.n_unknown} asset partitions unknown"
        )
        assert seconds < MOST_SECONDS
        return planned


@pytest.fixture
def planning(tmp_path: Path, report: Callable[[str], None]) -> Planning:
    write_tiny_model(tmp_path / "model")
    write_study(tmp_path)
    write_documents(tmp_path, 500)
    return Planning(tmp_path, report)


def n_to_ask(planned: list[Planned]) -> Counter[str]:
    return Counter(one.asset for one in planned if one.is_dirty and one.asset in ASKING)


def test_two_thousand_partitions_are_planned_in_time(
    planning: Planning, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = planning.plan("nothing made yet", "empty")
    assert {one.decision for one in planned} == {"compute"}
    planning.made()
    assert Counter(one.decision for one in planning.plan("nothing changed")) == {
        "reuse": len(planned)
    }
    with monkeypatch.context() as patch:
        patch.setattr(prompts, "WORDS_INPUT", _edited(prompts.WORDS_INPUT))
        counts = Counter(one.decision for one in planning.plan("a prompt changed"))
        assert counts["compute"] == N_LAYERS * N_FITS
    write_documents(planning.root, 501)
    counts = Counter(one.decision for one in planning.plan("the corpus changed"))
    assert counts["compute"] == 1 and counts["reuse"] == 0


def test_two_thousand_partitions_with_rows_are_planned_in_time(
    planning: Planning, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = {"model": "some-llm"}
    write_study(planning.root, llm=llm)
    specs = planning.made(n_rows(N_FEATURES))
    began = time.perf_counter()
    lake = Lake(planning.root / "lake")
    plant_rows(lake, specs, n_features=N_FEATURES, llm_model="some-llm")
    lake.close()
    planning.report(f"planted in {time.perf_counter() - began:.0f} s")
    n_all = N_LAYERS * N_FITS
    with monkeypatch.context() as patch:
        patch.setattr(prompts, "CONTEXTS_INPUT", _edited(prompts.CONTEXTS_INPUT))
        planned = planning.plan("with rows, a prompt of labels changed")
        assert n_to_ask(planned) == dict.fromkeys(ASKING, n_all)
    write_study(planning.root, llm=llm, detection={"n_activating": 7})
    planned = planning.plan("with rows, a setting of detection changed")
    assert n_to_ask(planned) == {"detection": n_all}
    write_study(planning.root, llm=llm, steering={"n_texts": 3})
    planned = planning.plan("with rows, a setting of steering changed")
    assert n_to_ask(planned) == {"steering": n_all}
    write_study(planning.root, N_OTHER_LAYERS, llm=llm)
    planned = planning.plan("with rows, 40 layers of 100 others")
    assert n_to_ask(planned) == dict.fromkeys(ASKING, N_OTHER_LAYERS * N_FITS)


def _edited(prompt: prompts.Prompt) -> prompts.Prompt:
    return replace(prompt, system=prompt.system + " Be brief.")
