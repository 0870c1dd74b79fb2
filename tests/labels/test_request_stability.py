"""A document more or less leaves nearly every request to the LLM as it was, to the byte."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import polars as pl
import pytest

from assets.detection.config import DetectionConfig
from assets.detection.probe_sentences import probe_requests
from assets.evidence.config import EvidenceConfig
from assets.evidence.contexts import build_contexts
from assets.evidence.similar_features import similar_features
from assets.labels.config import LabelsConfig, LlmConfig
from assets.labels.label_scores import label_score_rows
from assets.labels.label_tasks import label_requests, requests_of
from assets.labels.score_questions import score_requests
from assets.labels.tables import LABEL_SCORES
from assets.labels.unasked import replies_of, to_send
from assets.shared.chat import ChatReply
from tests.evidence.changing_corpus import IDS, N_FEATURES, corpus
from tests.labels.planted_judges import contexts, named

EVIDENCE = EvidenceConfig(n_top=8, n_sampled=4, n_held_out=6, n_negative=6, window=4)
CONFIG = LabelsConfig(kinds=("input",), n_held_out=3, rerank="none")
# Hard negatives and the shuffled control hang on other features too, and move a little more.
PLAIN = CONFIG.model_copy(update={"score_negatives": ("random",), "n_shuffled": 0})
LLMS = {"embedded": LlmConfig(), "remote": LlmConfig(model="some-model")}
NO_VOCABULARY = pl.DataFrame(
    schema={"feature_id": pl.Int32, "sign": pl.String, "rank_in_sign": pl.Int32, "token": pl.String}
)


@cache
def similar() -> dict[int, list[int]]:
    """Similar features of any dictionary: it stays when a document comes or goes."""
    neurons = np.random.default_rng(0).standard_normal((N_FEATURES, 30))
    feature_ids, places = np.divmod(np.arange(neurons.size), neurons.shape[1])
    frame = {"feature_id": feature_ids, "neuron": places, "weight": neurons.ravel()}
    return similar_features(pl.DataFrame(frame), 3)


@cache
def requests(
    documents: tuple[str, ...], llm: str, seed: int = 0, is_plain: bool = False
) -> dict[str, list[str]]:
    """Hashes of all requests by purpose. A label follows from its request: a worst-case LLM."""
    evidence, config = EVIDENCE.model_copy(update={"seed": seed}), PLAIN if is_plain else CONFIG
    contexts = build_contexts(*corpus(list(documents)), evidence, similar=similar())
    tasks = label_requests(
        contexts, NO_VOCABULARY, config, features=range(N_FEATURES), llm=LLMS[llm]
    )
    hashes = [request.request_hash("m") for request in requests_of(tasks)]
    labels = {t.feature_id: f"theme {h[:8]}" for t, h in zip(tasks, hashes, strict=True)}
    frame = pl.DataFrame(
        {
            "feature_id": list(labels),
            "kind": "input",
            "label": list(labels.values()),
            "status": "ok",
        },
        schema_overrides={"feature_id": pl.Int32},
    )
    scored = score_requests(frame, contexts, config, llm=LLMS[llm])
    probes = probe_requests(labels, DetectionConfig(n_activating=4))
    return {
        "labels": hashes,
        "label_scores": [task.request.request_hash("m") for task in scored],
        "probe_sentences": [task.request.request_hash("m") for task in probes],
    }


def share_of_new_calls(before: dict[str, list[str]], after: dict[str, list[str]]) -> float:
    asked = {request for of_purpose in before.values() for request in of_purpose}
    wanted = [request for of_purpose in after.values() for request in of_purpose]
    return float(np.mean([request not in asked for request in wanted]))


@pytest.mark.parametrize(("is_plain", "most"), [(True, 0.05), (False, 0.06)])
@pytest.mark.parametrize("llm", LLMS)
def test_one_document_in_500_makes_few_new_calls(llm: str, is_plain: bool, most: float) -> None:
    whole = requests(tuple(IDS), llm, is_plain=is_plain)
    added, removed, edited = [], [], []
    for document in IDS[11:500:41]:
        fewer = tuple(other for other in IDS if other != document)
        without = requests(fewer, llm, is_plain=is_plain)
        added.append(share_of_new_calls(without, whole))
        removed.append(share_of_new_calls(whole, without))
        changed = requests((*fewer, document[::-1]), llm, is_plain=is_plain)
        edited.append(share_of_new_calls(whole, changed))
    assert max(map(np.mean, (added, removed))) <= most
    assert np.mean(edited) <= 0.15
    assert max(*added, *removed) <= 0.15


@pytest.mark.parametrize("llm", LLMS)
def test_the_same_corpus_in_another_order_makes_no_new_call(llm: str) -> None:
    assert share_of_new_calls(requests(tuple(IDS), llm), requests(tuple(IDS[::-1]), llm)) == 0


def test_other_draws_are_the_control_and_make_nearly_all_calls_anew() -> None:
    calls = [requests(tuple(IDS), "embedded", seed) for seed in (0, 1)]
    assert share_of_new_calls(*calls) > 0.9


def label_scores_of(failed: int | None, status: str = "failed") -> pl.DataFrame:
    """Label scores of 30 features by forced choice, the judge drawing lots."""
    frame = named(30).filter(kind="input")
    is_failed = pl.col("feature_id").eq_missing(pl.lit(failed, pl.Int64))
    frame = frame.with_columns(
        label=pl.when(is_failed).then(None).otherwise("label"),
        status=pl.when(is_failed).then(pl.lit(status)).otherwise("status"),
    )
    config = CONFIG.model_copy(update={"score_negatives": ("random",), "judge_style": "choice"})
    tasks = score_requests(frame, contexts(30), config, llm=LLMS["remote"])
    replies = []
    for request in to_send(tasks):
        assert request.json_schema is not None
        offered = request.json_schema["properties"]["label"]["enum"]
        asked = request.request_hash("m")
        text = json.dumps({"label": offered[int(asked, 16) % 2]})
        replies.append(ChatReply(request, asked, "m", "ok", text=text))
    rows = label_score_rows(tasks, replies_of(tasks, replies), frame, config, llm=LLMS["remote"])
    LABEL_SCORES.conform(rows, {"site": "s", "fit": "f"})
    return rows


def scores_with(labels: dict[int, str | None]) -> dict[tuple[int, str, bool], tuple[str, ...]]:
    """(feature, document, is_positive) → foils, for features whose label is not None."""
    contexts = pl.DataFrame(
        [
            {
                "feature_id": feature,
                "kind": kind,
                "rank_in_kind": rank,
                "document_id": f"{kind}-{rank}",
                "peak_token": "w",
                "text": f"{feature} {kind} {rank}",
                "marked_text": f"{feature} {kind} {rank}",
            }
            for feature in labels
            for kind in ("held_out", "negative", "hard_negative")
            for rank in range(3)
        ]
    )
    frame = pl.DataFrame(
        {
            "feature_id": list(labels),
            "kind": "input",
            "label": list(labels.values()),
            "status": ["ok" if label else "none" for label in labels.values()],
        }
    )
    foils: dict[tuple[int, str, bool], tuple[str, ...]] = {}
    config = CONFIG.model_copy(update={"n_shuffled": 0, "judge_style": "choice"})
    for task in score_requests(frame, contexts, config, llm=LLMS["embedded"]):
        key = (task.scored.feature_id, task.document_id, task.is_positive)
        foils[key] = (*foils.get(key, ()), str(task.foil))
    return foils


def test_a_failed_label_leaves_other_questions_as_they_are_or_unasked() -> None:
    """Forced choices: no other foil is drawn; what is scored is scored as without the failure."""
    whole, found = label_scores_of(failed=None), label_scores_of(failed=3)
    asked = {h for row in whole.iter_rows(named=True) for h in row["request_hashes"]}
    assert {h for row in found.iter_rows(named=True) for h in row["request_hashes"]} < asked
    key = ["feature_id", "kind", "method", "negatives", "is_shuffled"]
    status = dict(found.filter(~pl.col("is_shuffled")).select("feature_id", "status").iter_rows())
    # No feature is without a row, not even the one whose label failed.
    assert sorted(status) == list(range(30))
    assert status.pop(3) == "not_attempted"
    assert 0 < sum(one == "partial" for one in status.values()) < len(status) / 2
    partial = found.filter(status="partial", is_shuffled=False)
    assert set(partial["n_failed"]) <= {1, 2, 3, 4, 5, 6} and partial["auroc"].null_count() == 0
    done = found.filter(status="ok")
    assert len(done) > 10 and done["is_shuffled"].any()
    assert done.equals(done.select(key).join(whole, on=key).select(done.columns))
    # Control: the same questions if the label had said "none", which draws other foils.
    none = label_scores_of(failed=3, status="none")
    assert {h for row in none.iter_rows(named=True) for h in row["request_hashes"]} - asked


def test_a_changed_label_changes_only_the_questions_it_is_part_of() -> None:
    labels: dict[int, str | None] = {feature: f"theme {feature}" for feature in range(30)}
    before, after = scores_with(labels), scores_with({**labels, 3: "another theme"})
    changed = {key for key in before if before[key] != after[key] or key[0] == 3}
    assert changed == {key for key in before if "theme 3" in before[key] or key[0] == 3}
    assert len(changed) < 0.15 * len(before)


def test_a_feature_that_gains_a_label_enters_few_questions() -> None:
    labels: dict[int, str | None] = {feature: f"theme {feature}" for feature in range(30)}
    before, after = scores_with({**labels, 3: None}), scores_with(labels)
    changed = {key for key in before if before[key] != after[key]}
    assert all(after[key] == ("theme 3",) for key in changed)
    assert 0 < len(changed) < 0.1 * len(before)
