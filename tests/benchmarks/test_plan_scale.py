"""How long `make plan` takes for 2,000 (site, fit) partitions of a synthetic study.

The ledger's states are written in bulk, as if every partition had been made. Planned are: nothing
changed, a prompt changed, and the corpus changed. Printed: seconds of each, ledger read included.
"""

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from planted_ledger import PlantedWorld, planted_states

from assets.labels import prompts
from orchestration.planning import Planner
from resources.lake import Lake
from resources.ledger import Ledger
from resources.model_resource import SubjectModelResource
from resources.study import StudiesResource
from resources.world import WorldAtOnce

pytestmark = pytest.mark.benchmark
N_LAYERS, N_FITS = 100, 20
MOST_SECONDS = 30.0


def write_tiny_model(folder: Path) -> None:
    """A GPT-2 of width 8: a plan asks only what its files' contents are."""
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_layer": N_LAYERS, "n_embd": 8, "n_head": 2, "vocab_size": 64, "n_positions": 32}
    config = GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(folder)


def write_study(root: Path) -> None:
    study = {
        "name": "wide",
        "corpus": {"path": "documents.jsonl"},
        "models": [
            {"source": str(root / "model"), "name": "tiny", "layers": list(range(N_LAYERS))}
        ],
        "fits": [{"method": "snmf", "rank": rank} for rank in range(2, 2 + N_FITS)],
    }
    (root / "studies").mkdir()
    (root / "studies" / "wide.yaml").write_text(yaml.safe_dump(study))


def write_documents(root: Path, n: int) -> None:
    lines = [json.dumps({"text": f"Sentence {i}."}) for i in range(n)]
    (root / "studies" / "documents.jsonl").write_text("\n".join(lines))


def test_two_thousand_partitions_are_planned_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Callable[[str], None]
) -> None:
    write_tiny_model(tmp_path / "model")
    write_study(tmp_path)
    write_documents(tmp_path, 500)
    studies = StudiesResource(folder=str(tmp_path / "studies"))
    models = SubjectModelResource(cache_folder=str(tmp_path / "cache"))
    study = studies.study("wide")
    lake = Lake(tmp_path / "lake")
    ledger = Ledger(lake)
    revision = models.revision(study.models[0])
    made = PlantedWorld(tmp_path / "studies", revision=revision)
    states = planted_states(study, made)
    ledger.append(states, run_id="run-1")
    lake.close()
    report(f"{N_LAYERS * N_FITS} (site, fit) partitions, {len(states)} asset partitions")

    def plan(what: str) -> Counter[str]:
        """Everything that `make plan` does after its imports."""
        began = time.perf_counter()
        world = WorldAtOnce(Ledger(Lake(tmp_path / "lake")), studies, models)
        planned = list(Planner(world).study(study))
        seconds = time.perf_counter() - began
        counts = Counter(one.decision for one in planned)
        report(f"{what}: {seconds:.1f} s; {dict(counts)}")
        assert seconds < MOST_SECONDS
        assert len(planned) == len(states)
        return counts

    assert plan("nothing changed") == {"reuse": len(states)}
    with monkeypatch.context() as patch:
        patch.setattr(prompts, "WORDS_INPUT", _edited(prompts.WORDS_INPUT))
        counts = plan("a prompt changed")
        assert counts["compute"] == N_LAYERS * N_FITS
    write_documents(tmp_path, 501)
    counts = plan("the corpus changed")
    assert counts["compute"] == 1 and counts["reuse"] == 0


def _edited(prompt: prompts.Prompt) -> prompts.Prompt:
    return replace(prompt, system=prompt.system + " Be brief.")
