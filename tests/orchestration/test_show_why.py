"""`make why` goes from a feature's label and scores back to sentence, prompt, model and run."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from planted_lineage import FEATURE, FIT, PARTITIONS, SITE, PlantedLake, rows

from assets.factorization.tables import FACTORIZATIONS
from assets.labels.tables import LABELS
from assets.steering.feature_tables import STEERING_SUMMARIES
from assets.steering.tables import STEERING_SCORES
from orchestration import show_why
from orchestration.show_why import why
from resources.lineage.feature_choice import UnknownFeatureError
from resources.lineage.step import Step
from resources.llm_cache import Answer, LlmCache

NAME = f"{SITE} | {FIT} | {FEATURE}"


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlantedLake:
    monkeypatch.setenv("FEATURELAKE_LAKE", str(tmp_path / "lake"))
    return PlantedLake(tmp_path / "lake")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> PlantedLake:
    """A lake in which everything was made; tests only read it."""
    made = PlantedLake(tmp_path_factory.mktemp("whole") / "lake")
    made.write_all()
    return made


def steps(step: Step) -> Iterator[Step]:
    yield step
    for source in step.sources:
        yield from steps(source)


def of_kind(chain: Step, kind: str) -> list[Step]:
    return [step for step in steps(chain) if step.kind == kind]


def test_the_chain_goes_from_the_label_to_sentence_file_prompt_and_run(
    whole: PlantedLake,
) -> None:
    chain = why(whole.lake, NAME)
    label = of_kind(chain, "label")[0]
    call, contexts = label.sources
    assert "weekdays" in label.text
    assert call.facts["request_hash"] == "hash-of-input" and call.facts["prompt_version"] == "v3"
    # The labeller was shown one context, as its settings in the ledger say.
    (context,) = contexts.sources
    assert "«Monday»" in context.text
    assert (context.facts["source"], context.facts["source_row"]) == ("days.jsonl", 7)
    assert label.made is not None and label.made.is_in_ledger
    assert label.made.snapshot == whole.snapshots["labels"] and label.made.is_snapshot_held
    assert label.made.run_id == "run of labels" and label.made.code_version == "code of labels"
    assert label.made.fingerprint == "fingerprint of labels"
    assert label.made.reason == "labels.n_contexts_shown 8 → 1"
    assert contexts.made is not None and contexts.made.asset == "contexts"


def test_evidence_of_several_labels_is_told_once(whole: PlantedLake) -> None:
    _, output, combined, summary = of_kind(why(whole.lake, NAME), "label")
    (call, *evidence) = combined.sources
    assert call.facts["request_hash"] == "hash-of-combined"
    assert [step.kind for step in evidence] == ["contexts", "promoted_tokens"]
    assert {step.text for step in (*evidence, *summary.sources)} == {"see above"}
    assert "' days'" in output.sources[-1].text


def test_the_chain_has_fit_and_earlier_fit_model_and_documents(whole: PlantedLake) -> None:
    chain = why(whole.lake, NAME)
    (dictionary,) = of_kind(chain, "dictionary_row")
    assert [neuron for neuron, _ in dictionary.facts["neurons"]] == [2, 5]
    (coefficients,) = of_kind(chain, "coefficients")
    assert coefficients.facts == {"n_active_tokens": 2, "max_coefficient": 2.5}
    (fit,) = of_kind(chain, "fit")
    assert "warm start" in fit.text and "goes on 3 of it, cosine 0.987" in fit.text
    (earlier,) = of_kind(chain, "earlier_fit")
    assert "cold start" in earlier.text and earlier.facts["is_snapshot_held"]
    (activations,) = of_kind(chain, "activations")
    assert activations.facts["model_revision"] == "rev-1"
    assert activations.facts["shards"][0]["sha256"] == "aa"
    (documents,) = of_kind(chain, "documents")
    assert documents.facts["files_hash"] == "files-hash" and "days.jsonl" in documents.text


def test_the_chain_has_every_score_with_its_judges_calls(whole: PlantedLake) -> None:
    chain = why(whole.lake, NAME)
    kinds = {step.kind for step in steps(chain)}
    assert kinds >= {"label_score", "detection", "probe_sentences", "calibration", "faithfulness"}
    hard, shuffled = of_kind(chain, "label_score")
    assert "input, detection, hard negatives: AUROC 0.75 (0.5 to 1)" in hard.text
    assert hard.sources[0].facts["request_hash"] == "hash-of-judge"
    assert "shuffled control, 'sea'" in shuffled.text
    (steering,) = of_kind(chain, "steering")
    assert "1.5 of 2, 0.5 over unsteered texts, with sign + at 0.5 nats" in steering.text
    (probe,) = of_kind(chain, "probe_sentences")
    assert probe.sources[0].facts["request_hash"] == "hash-of-probe"
    (text,) = of_kind(chain, "rated_text")
    assert "So it is Monday." in text.text and text.facts["text_seed"] == 4
    hashes = {call.facts["request_hash"] for call in text.sources}
    assert hashes == {"hash-of-concept", "hash-of-fluency"}
    (faithfulness,) = of_kind(chain, "faithfulness")
    assert "+0.2500 nats" in faithfulness.text


def test_each_judged_label_has_its_own_score_setting_and_ratings(planted: PlantedLake) -> None:
    planted.write_all()
    planted.judge_on_two_labels()
    by_input, by_output = of_kind(why(planted.lake, NAME), "steering")
    assert "by the input label 1.5 of 2, 0.5 over" in by_input.text
    assert "with sign + at 0.5" in by_input.text
    assert "by the output label 1.75 of 2, 0.75 over" in by_output.text
    assert "with sign - at 0.5" in by_output.text
    rated = [
        [one.facts["label_kind"] for one in of_kind(step, "rated_text")]
        for step in (by_input, by_output)
    ]
    assert rated == [["input"], ["output_minus"]]
    (of_input,), (of_output,) = (of_kind(step, "rated_text") for step in (by_input, by_output))
    assert "text of +" in of_input.text and "text of -" in of_output.text
    assert by_output.facts["steering_score"] == 1.75
    # How strengths were found is said once, whatever they were judged on.
    assert of_kind(by_input, "calibration") and not of_kind(by_output, "calibration")


def test_a_judged_label_without_a_score_says_why_beside_one_that_has_it(
    planted: PlantedLake,
) -> None:
    planted.write_all()
    of_feature = {"feature_id": FEATURE, "sign": "+", "target_kl_nats": 0.5, "text_index": 0}
    failed = {"label": None, "score": None, "status": "failed", "reason": "timeout"}
    scores = [
        {**of_feature, "label_kind": "input", **failed, "score": 1.5, "status": "ok"},
        {**of_feature, "label_kind": "output", **failed},
    ]
    planted.write("steering", "fit", {STEERING_SCORES: rows(STEERING_SCORES, *scores)})
    best = {
        "feature_id": FEATURE,
        "label_kind": "input",
        "sign": "either",
        "pooling": "best_kl",
        "score": 1.5,
        "chosen_sign": "+",
        "target_kl_nats": 0.5,
    }
    frames = {STEERING_SUMMARIES: rows(STEERING_SUMMARIES, best)}
    planted.write("steering_summaries", "fit", frames)
    by_input, by_output = of_kind(why(planted.lake, NAME), "steering")
    assert "1.5 of 2" in by_input.text
    assert by_output.text == "by the output label no score: failed, timeout"


def test_when_a_call_was_answered_comes_from_the_cache(whole: PlantedLake) -> None:
    (call, *_) = of_kind(why(whole.lake, NAME), "llm_call")
    assert call.facts["answered_at"] is None
    LlmCache(whole.lake.llm_cache_folder).write("hash-of-input", Answer("gpt-x", "weekdays"))
    (call, *_) = of_kind(why(whole.lake, NAME), "llm_call")
    assert call.facts["answered_at"] in call.text


def test_an_expired_snapshot_is_said_and_the_ledger_still_tells(planted: PlantedLake) -> None:
    planted.write_all()
    first = of_kind(why(planted.lake, NAME), "earlier_fit")[0].facts["snapshot"]
    expired = [first, planted.snapshots["labels"]]
    planted.lake.query(f"CALL ducklake_expire_snapshots('lake', versions => {expired})")
    chain = why(planted.lake, NAME)
    (earlier,) = of_kind(chain, "earlier_fit")
    assert "was expired" in earlier.text and not earlier.facts["is_snapshot_held"]
    made = of_kind(chain, "label")[0].made
    assert made is not None and not made.is_snapshot_held
    assert made.snapshot == planted.snapshots["labels"] and made.written_at is not None
    assert made.run_id == "run of labels"


def test_a_lake_from_before_the_ledger_tells_what_its_commits_say(tmp_path: Path) -> None:
    planted = PlantedLake(tmp_path / "old", has_ledger=False)
    planted.write_all()
    n_snapshots = len(planted.lake.snapshots())
    chain = why(planted.lake, NAME)
    made = of_kind(chain, "label")[0].made
    assert made is not None and not made.is_in_ledger
    assert (made.run_id, made.fingerprint) == ("run of labels", "fingerprint of labels")
    assert made.reason is None and made.code_version is None
    # Without the settings, all contexts that may have been shown.
    assert len(of_kind(chain, "context")) == 2
    assert "document gone, not in the corpus" in of_kind(chain, "context")[1].text
    # Telling why writes nothing, no table of the ledger either.
    assert len(planted.lake.snapshots()) == n_snapshots


def test_the_chain_at_a_version_is_that_of_then(planted: PlantedLake) -> None:
    planted.write_all()
    then = planted.snapshots["catalogue"]
    planted.write("labels", "fit", {LABELS: rows(LABELS)}, reason="prompt words v3 → v4")
    assert "none: labels was not made" in of_kind(why(planted.lake, NAME), "label")[0].text
    past = why(planted.lake, NAME, at=str(then))
    made = of_kind(past, "label")[0].made
    assert "weekdays" in of_kind(past, "label")[0].text
    assert made is not None and made.reason == "labels.n_contexts_shown 8 → 1"


def test_make_why_prints_a_tree_or_json_with_the_same_steps(
    whole: PlantedLake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEATURELAKE_LAKE", str(whole.lake.root))
    assert show_why.main({"FEATURE": NAME}) == 0
    printed = capsys.readouterr().out
    for said in ("weekdays", "days.jsonl row 7", "because: tokens changed", "code of labels"):
        assert said in " ".join(printed.replace("│", " ").split())
    assert show_why.main({"FEATURE": NAME, "JSON": "1"}) == 0
    read = json.loads(capsys.readouterr().out)
    assert read["kind"] == "feature" and read["facts"]["label"] == "weekdays"
    assert read["sources"][0]["made"]["parts"]["settings.labels.n_contexts_shown"] == "1"


@pytest.mark.parametrize(
    "variables",
    [
        {"FEATURE": str(FEATURE)},
        {"FEATURE": f"#{FEATURE}", "SITE": "L1"},
        {"FEATURE": str(FEATURE), "SITE": SITE, "FIT": "snmf"},
        {"FEATURE": f"L1 | {FIT} | {FEATURE}"},
    ],
)
def test_a_feature_may_be_named_in_short(planted: PlantedLake, variables: dict[str, str]) -> None:
    planted.write("factorization", "fit", planted.fit_frames("cold", None))
    chain = why(
        planted.lake, variables["FEATURE"], site=variables.get("SITE"), fit=variables.get("FIT")
    )
    assert chain.text.startswith(NAME) and "not in the catalogue" in chain.text


def test_what_is_not_there_is_answered_with_what_is_near(planted: PlantedLake) -> None:
    with pytest.raises(UnknownFeatureError, match="holds no fit"):
        why(planted.lake, NAME)
    planted.write("factorization", "fit", planted.fit_frames("cold", None))
    with pytest.raises(UnknownFeatureError, match="has no feature 4; it has 2, near it: 3, 8"):
        why(planted.lake, "4")
    with pytest.raises(UnknownFeatureError, match=rf"SITE 'mini:tiny@L2\S*' .* near it: {SITE}"):
        why(planted.lake, f"mini:tiny@L2.mlp_hidden | {FIT} | 3")
    with pytest.raises(UnknownFeatureError, match=r"expected FEATURE='<site> \| <fit> \| <id>'"):
        why(planted.lake, "Monday")
    other = {**PARTITIONS["fit"], "fit": "pca-k004"}
    failed = {"status": "failed", "reason": "no tokens", "n_features": None, "feature_ids": None}
    frames = {FACTORIZATIONS: rows(FACTORIZATIONS, failed)}
    PARTITIONS["other"] = other
    planted.write("factorization", "other", frames)
    with pytest.raises(UnknownFeatureError, match="has no features: the fit is failed, no tokens"):
        why(planted.lake, "3", fit="pca")
    assert why(planted.lake, "3").text.startswith(NAME)
    PARTITIONS["other"] = {**other, "fit": "snmf-k004-again"}
    planted.write("factorization", "other", planted.fit_frames("cold", None))
    with pytest.raises(UnknownFeatureError, match="feature 3 is in 2 of 3 fits; say which"):
        why(planted.lake, "3")
    del PARTITIONS["other"]
    assert why(planted.lake, "3", fit=FIT).text.startswith(NAME)


def test_mistakes_on_the_command_line_are_said(
    planted: PlantedLake, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show_why.main({"FEATURE": NAME}) == 1
    assert "make demo" in capsys.readouterr().out
    planted.write("factorization", "fit", planted.fit_frames("cold", None))
    assert show_why.main({}) == 2
    assert "no FEATURE given" in capsys.readouterr().out
    assert show_why.main({"FEATURE": "99"}) == 2
    assert "no feature 99" in capsys.readouterr().out
    assert show_why.main({"FEATURE": NAME, "AT": "1000"}) == 2
    assert "holds no version 1000" in capsys.readouterr().out
