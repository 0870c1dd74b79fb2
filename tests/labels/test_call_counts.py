"""Calls counted before they are made, against the requests that are then built."""

from __future__ import annotations

from collections import Counter

import pytest

from assets.evidence.config import EvidenceConfig
from assets.labels.call_counts import label_call_counts
from assets.labels.config import LabelsConfig, LlmConfig
from assets.labels.label_tasks import label_requests, requests_of
from assets.labels.score_questions import score_requests
from tests.labels.planted_judges import contexts, named
from tests.labels.test_label_tasks import VOCABULARY

EMBEDDED, REMOTE = LlmConfig(), LlmConfig(model="some-model")
EVIDENCE = EvidenceConfig(n_held_out=6, n_negative=6, n_hard_negative=6)


@pytest.mark.parametrize("llm", [EMBEDDED, REMOTE], ids=["embedded", "remote"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rerank": "none", "n_shuffled": 1, "score_negatives": ("hard",)},
        {"judge_style": "choice", "n_foils": 3, "score_methods": ("fuzzing",), "n_held_out": 9},
        {"score_methods": ("simulation",), "n_shuffled": 0},
        {"score_kinds": ("input", "output"), "judge_style": "yes_no"},
        {"kinds": ("output",), "score_kinds": ("input",)},
    ],
)
def test_the_count_is_that_of_the_requests(llm: LlmConfig, changes: dict) -> None:
    config = LabelsConfig().model_copy(update={"max_context_words": 4, **changes})
    expected = label_call_counts(2, config, EVIDENCE, llm, llm)
    tasks = label_requests(contexts(2), VOCABULARY, config, features=[0, 1], llm=llm)
    requests = requests_of(tasks)
    labelled = named(2).filter(named(2)["kind"].is_in([*config.kinds]))
    asked = [task.request for task in score_requests(labelled, contexts(2), config, llm=llm)]
    found = Counter(request.prompt_name for request in [*requests, *asked])
    is_reranked = config.is_reranked_for(llm)
    for name, count in expected.items():
        assert count.prompt.name == name and 0 <= count.usual <= count.most
        # Where candidates are reranked, each may be asked for without evidence too.
        is_label = name.startswith("label_") and "fits" not in name
        assert count.most == found[name] * (2 if is_label and is_reranked else 1)
    assert set(found) <= set(expected)


def test_a_simulated_context_usually_takes_a_call_for_each_of_its_words() -> None:
    config = LabelsConfig(score_methods=("simulation",), max_context_words=20)
    (few, some, capped, most) = (
        label_call_counts(4, config, EVIDENCE, REMOTE, REMOTE, words_per_context=n)["rate_word"]
        for n in (5, 10, 99, 20)
    )
    assert few.most == some.most == capped.most == most.most
    assert 2 * few.usual == some.usual == most.usual / 2 and capped.usual == most.usual
