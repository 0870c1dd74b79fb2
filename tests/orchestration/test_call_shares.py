"""Before a first run, what several fits ask alike counts once: for one model, or for all."""

from pathlib import Path

import pytest

from assets.shared.call_count import CallCount
from assets.steering.prompts import CONCEPT_PROMPT
from orchestration.call_shares import CallShares
from orchestration.recipes import specs_of
from resources.lake import Lake
from resources.study import FitSpec
from resources.study_files import load_study

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("stage", "n_alike"), [("steering", 5), ("labels", 10)])
def test_unsteered_texts_are_of_one_model_and_labels_of_all(
    tmp_path: Path, stage: str, n_alike: int
) -> None:
    study = load_study(PROJECT / "studies" / "two_models.yaml")
    specs = [one for one in specs_of(study) if isinstance(one, FitSpec)]
    assert (len(specs), len({one.site.model_name for one in specs})) == (10, 2)
    shares = CallShares(study, Lake(tmp_path / "lake"), specs, clean=set())
    prompt = CONCEPT_PROMPT.name
    counts = {prompt: CallCount(CONCEPT_PROMPT, 100, 100.0, 60.0)}
    found = [shares.as_elsewhere(stage, one, lambda n: counts, 1)[prompt][1] for one in specs]
    # Each fit asks 40 calls of its own; the 60 alike are asked once for so many fits.
    assert found == pytest.approx([40 + 60 / n_alike] * 10)
