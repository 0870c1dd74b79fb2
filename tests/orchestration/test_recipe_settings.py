"""Each setting, prompt, model and input is seen by exactly the recipes that depend on it."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from planted_ledger import PlantedWorld

from assets.labels import prompts
from orchestration.recipes import RECIPES, recipes_of, specs_of
from resources.study import Study

STUDY: dict[str, Any] = {
    "name": "mini",
    "corpus": {"path": "bundled:concepts"},
    "models": [{"source": "smollm2-135m-instruct", "layers": [3], "kinds": ["mlp_hidden"]}],
    "fits": [
        {"method": "snmf", "rank": 8},
        {"method": "diff_means"},
        {"method": "permuted", "rank": 8},
    ],
    "hierarchy": {"groups": {"days": ["Monday", "Friday"]}},
}
ASKS_THE_LLM = {"labels", "detection", "steering"}
RUNS_THE_MODEL = {
    "activations",
    "faithfulness",
    "vocab_projection",
    "bilinear_view",
    "detection",
    "steering",
    "judge_free_scores",
    "ablation",
    "feature_groups",
    "group_steering",
}


def parts_of(study: Mapping[str, Any], **world: Any) -> dict[tuple[str, str], dict[str, str]]:
    """Parts by recipe and fit ("" for those of a site or the study)."""
    made = PlantedWorld(Path.cwd(), **world)
    parsed = Study.model_validate(study)
    return {
        (recipe.name, getattr(getattr(spec, "fit", None), "key", "")): recipe.parts(spec, made)
        for spec in specs_of(parsed)
        for recipe in recipes_of(spec)
    }


def changed(study: Mapping[str, Any], setting: str, value: Any) -> set[tuple[str, str]]:
    """What a study with another value of a setting (dotted, fits.0.tol) has other parts of."""
    edited = deepcopy(dict(study))
    *path, last = [int(word) if word.isdigit() else word for word in setting.split(".")]
    place: Any = edited
    for name in path:
        place = place.setdefault(name, {}) if isinstance(place, dict) else place[name]
    assert not isinstance(place, dict) or place.get(last) != value
    place[last] = value
    before, after = parts_of(study), parts_of(edited)
    assert before.keys() == after.keys(), "the setting renames a partition"
    return {key for key in before if before[key] != after[key]}


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("description", "other words", set()),
        ("nightly.cron", "0 3 * * *", set()),
        ("nightly.budget.usd", 1.0, set()),
        ("corpus.max_documents", 10, {"corpus"}),
        ("corpus.bad_rows", "reject", {"corpus"}),
        ("models.0.revision", "v2", {"activations"}),
        ("models.0.dtype", "bfloat16", RUNS_THE_MODEL),
        ("activations.batch_tokens", 64, set()),
        ("activations.shard_tokens", 64, {"activations"}),
        ("activations.max_tokens_per_document", 64, {"activations", "detection"}),
        ("activations.massive_norm_ratio", 9.0, {"activations", "detection"}),
        ("faithfulness.n_documents", 3, {"faithfulness"}),
        ("faithfulness.seed", 3, {"faithfulness"}),
        ("faithfulness.batch_tokens", 3, set()),
        ("evidence.n_top", 3, {"contexts"}),
        ("evidence.seed", 3, {"contexts"}),
        ("evidence.n_similar", 3, {"contexts"}),
        ("evidence.n_vocab", 3, {"vocab_projection"}),
        ("evidence.bilinear.n_tokens", 3, {"bilinear_view"}),
        ("llm.model", "gpt-x", ASKS_THE_LLM),
        ("llm.embedded_context", 2048, ASKS_THE_LLM),
        ("llm.concurrency", 3, set()),
        ("judge_llm", {"model": "gpt-x"}, {"labels", "steering"}),
        ("judge_llm", {"embedded_context": 1024}, set()),
        ("llm.timeout_seconds", 3.0, set()),
        ("llm.usd_per_million_prompt_tokens", 3.0, set()),
        ("labels.n_held_out", 3, {"labels"}),
        ("labels.rerank", "none", {"labels"}),
        ("labels.seed", 3, {"labels"}),
        # Detection is by the label of one kind alone.
        ("labels.kinds", ["input"], {"labels"}),
        ("detection.n_neutral", 3, {"detection"}),
        ("detection.documents_without_concept", "negatives", {"detection", "ablation"}),
        ("steering.target_kl_nats", [0.5], {"steering"}),
        ("steering.judge", "json", {"steering"}),
        (
            "steering.judged_labels",
            ["input", "output"],
            {"steering", "judge_free_scores", "comparison"},
        ),
        (
            "steering.judged_labels",
            ["output"],
            {"steering", "judge_free_scores", "catalogue", "comparison"},
        ),
        # Of rating_agreement alone.
        ("steering.n_bootstrap", 10, set()),
        ("steering.confidence", 0.9, {"steering_summaries"}),
        ("steering.seed", 3, {"steering"}),
        (
            "steering.neutral_prompts",
            ["So"],
            {"steering", "judge_free_scores", "group_steering"},
        ),
        ("ablation.strong_share", 0.4, {"ablation"}),
        ("ablation.seed", 3, {"ablation"}),
        ("ablation.batch_tokens", 3, set()),
        ("evidence.firing_share", 0.3, {"contexts", "ablation"}),
        ("hierarchy.ranks", [3], {"hierarchy"}),
        ("hierarchy.fine_tune", False, {"hierarchy"}),
        ("hierarchy.seed", 3, {"hierarchy", "group_steering"}),
        ("hierarchy.members_by", "promoted_tokens", {"feature_groups"}),
        ("hierarchy.core_share", 0.5, {"feature_groups", "group_steering"}),
        ("hierarchy.groups.days", ["Monday", "Sunday"], {"feature_groups", "group_steering"}),
        ("hierarchy.group_prompts", ["Today is"], {"group_steering"}),
        ("hierarchy.n_null_draws", 1, {"group_steering"}),
        ("comparison.fdr", 0.1, {"comparison"}),
        ("comparison.n_bootstrap", 10, {"comparison"}),
    ],
)
def test_a_setting_is_seen_by_exactly_the_recipes_that_depend_on_it(
    setting: str, value: Any, expected: set[str]
) -> None:
    assert {name for name, _ in changed(STUDY, setting, value)} == expected


def test_another_kind_of_label_to_probe_by_makes_detection_anew() -> None:
    study = {**STUDY, "steering": {"judged_labels": ["output"]}}
    asked = ["output", "output_minus"]
    assert {name for name, _ in changed(study, "labels.kinds", asked)} == {"labels", "detection"}


@pytest.mark.parametrize("stage", ["faithfulness", "labels", "detection", "steering", "ablation"])
def test_of_two_limits_a_fit_sees_the_one_that_counts_for_it(stage: str) -> None:
    of_controls = {(stage, "permuted-k008")}
    of_others = {(stage, "snmf-k008"), (stage, "diff_means")}
    assert changed(STUDY, f"{stage}.max_features", 3) == of_others
    assert changed(STUDY, f"{stage}.max_features_controls", 3) == of_controls


def test_settings_of_a_fit_are_seen_by_that_fit_alone() -> None:
    assert changed(STUDY, "fits.0.tol", 0.01) == {("factorization", "snmf-k008")}
    assert changed(STUDY, "fits.0.device", "cpu") == set()
    assert changed(STUDY, "fits.0.max_memory_gib", 1.0) == {("hierarchy", "snmf-k008")}


def test_concepts_and_halves_matter_to_supervised_fits_only() -> None:
    fits = ("snmf-k008", "diff_means", "permuted-k008")
    expected = {(name, fit) for name in ("detection", "feature_groups", "ablation") for fit in fits}
    expected |= {("factorization", "diff_means")}
    assert changed(STUDY, "detection.seed", 3) == expected
    parts = parts_of(STUDY)
    assert "input.documents" in parts["factorization", "diff_means"]
    assert "input.documents" not in parts["factorization", "snmf-k008"]


def test_the_models_revision_is_seen_by_what_runs_the_model_and_the_endpoint_by_what_asks() -> None:
    def names_that_differ(one: dict, other: dict) -> set[str]:
        return {name for (name, fit), parts in one.items() if parts != other[name, fit]}

    before = parts_of(STUDY)
    assert names_that_differ(before, parts_of(STUDY, revision="r2")) == RUNS_THE_MODEL
    assert names_that_differ(before, parts_of(STUDY, endpoint="https://x/v1")) == set()
    remote = {**STUDY, "llm": {"model": "gpt-x"}}
    with_endpoint = parts_of(remote, endpoint="https://x/v1")
    assert names_that_differ(parts_of(remote), with_endpoint) == ASKS_THE_LLM
    for change, expected in (
        ({"json_repair_attempts": 0}, ASKS_THE_LLM),
        ({"extra_completion_tokens": 9}, ASKS_THE_LLM),
        ({"reasoning_effort": "low"}, ASKS_THE_LLM),
        ({"extra_completion_tokens": 0, "reasoning_effort": None}, set()),
        ({"retry_seconds": 1.0, "max_retries": 9}, set()),
        ({"batch": True}, set()),
    ):
        other = {**STUDY, "llm": {"model": "gpt-x", **change}}
        assert names_that_differ(parts_of(remote), parts_of(other)) == expected, change


def test_a_prompt_is_seen_by_the_stage_that_sends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = parts_of(STUDY)
    edited = replace(prompts.WORDS_INPUT, system="Name the theme.")
    monkeypatch.setattr(prompts, "WORDS_INPUT", edited)
    after = parts_of(STUDY)
    assert {name for name, fit in before if before[name, fit] != after[name, fit]} == {"labels"}
    was, now = before["labels", "diff_means"], after["labels", "diff_means"]
    assert {name for name in now if now[name] != was.get(name)} == {f"prompt.{edited.name}"}


def test_new_content_of_a_table_is_seen_by_exactly_those_that_read_it() -> None:
    site = "mini:smollm2-135m-instruct@L3.mlp_hidden"
    fit = f"{site} | snmf-k008"
    # Of a study of one judged label the comparison reads no steering_summaries.
    study = STUDY | {"steering": {"judged_labels": ["input", "output"]}}
    before = parts_of(study)
    for recipe in RECIPES:
        for table in recipe.tables:
            contents = {(table.name, key): "other" for key in ("mini", site, fit)}
            after = parts_of(study, contents=contents)
            seen = {name for name, one in before if before[name, one] != after[name, one]}
            readers = {
                other.name for other in RECIPES for one in other.inputs if one.table == table
            }
            assert seen == readers, table.name
