"""Scores without a judge, against full forwards and sums written out; reuse row by row."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
import pytest
import torch
from torch import nn

from assets.activations.hooks import add_at_site
from assets.shared.code_hash import imported_closure
from assets.steering.calibration import SIGN_FACTORS, calibrate_strengths
from assets.steering.computed_rows import ComputedRows
from assets.steering.definitions import CALIBRATION_MODULE, JUDGE_FREE_MODULE
from assets.steering.feature_tables import JUDGE_FREE_SCORES
from assets.steering.input_score import (
    FEWEST_CONTEXTS,
    InputScore,
    first_tokens,
    input_scores,
)
from assets.steering.judge_free import judge_free_scores
from assets.steering.judged_labels import ConceptLabel, kinds_by_sign
from assets.steering.label_logprob import MOST_LABEL_TOKENS, label_token_ids
from assets.steering.output_score import rank_weighted_probability
from tests.activations.tiny_models import tiny_model, word_tokenizer
from tests.steering.planted_steering import PARTITION, PROMPTS, SITE, no_forward, unit_directions

PROMPT_IDS = list(PROMPTS.values())
OWN = {(i, sign): [7 + i, 31, 40 - i] for i in (10, 11) for sign in "+-"}
LABELS = {
    (10, "input"): ConceptLabel("w1 w2", "input"),
    (11, "input"): ConceptLabel("w3", "input"),
}
LABEL_IDS = {"w1 w2": (8, 21, 44), "w3": (13,), "w5": (19, 4), "w6 w7": (3, 2)}
READ = {(10, "+"): InputScore(0.25, 4), (11, "+"): InputScore(1.0, 2)}


def calibrations_of(model: nn.Module, directions: Mapping[int, torch.Tensor]) -> pl.DataFrame:
    return calibrate_strengths(
        model,
        SITE,
        torch.stack(list(directions.values())),
        feature_ids=list(directions),
        signs=["+", "-"],
        target_kl_nats=(0.01, 0.1),
        prompt_ids=PROMPT_IDS,
    ).rows


def scored(
    model: nn.Module,
    directions: Mapping[int, torch.Tensor],
    calibrations: pl.DataFrame,
    **options: object,
) -> ComputedRows:
    arguments = {
        "prompt_ids": PROMPT_IDS,
        "own_tokens": OWN,
        "labels": LABELS,
        "label_ids": LABEL_IDS,
        "kinds": kinds_by_sign(["input"], "+-"),
        "input_scores": READ,
        "made_by": ("code", "revision"),
    }
    run = judge_free_scores(model, SITE, calibrations, directions, **(arguments | options))
    JUDGE_FREE_SCORES.conform(run.rows, PARTITION)
    return run


def stored(run: ComputedRows) -> pl.DataFrame:
    return JUDGE_FREE_SCORES.conform(run.rows, PARTITION)


def log_probabilities(model: nn.Module, ids: list[int], vector: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), add_at_site(model, SITE, vector):
        return model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)


def brute_label_gain(model: nn.Module, vector: torch.Tensor, label: tuple[int, ...]) -> float:
    total = 0.0
    for prompt in PROMPT_IDS:
        for n_known, token in enumerate(label):
            known = [*prompt, *label[:n_known]]
            steered = log_probabilities(model, known, vector)[-1, token]
            total += float(steered - log_probabilities(model, known, 0 * vector)[-1, token])
    return total / len(PROMPT_IDS) / len(label)


def brute_output_score(model: nn.Module, vector: torch.Tensor, tokens: list[int]) -> float:
    total = 0.0
    for prompt in PROMPT_IDS:
        p = log_probabilities(model, prompt, vector)[-1].exp()
        order = p.argsort(descending=True).tolist()
        rank = min(order.index(token) for token in tokens)
        total += max(float(p[token]) for token in tokens) * (1 - rank / len(p))
    return total / len(PROMPT_IDS)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2", "opt"])
def test_scores_equal_full_forwards(architecture: str) -> None:
    model = tiny_model(architecture)
    directions = unit_directions(model, 2)
    calibrations = calibrations_of(model, directions)
    run = scored(model, directions, calibrations)
    assert len(run.rows) == len(calibrations) == 8
    checked = run.rows.drop_nulls("strength")
    assert len(checked) >= 4
    for row in checked.iter_rows(named=True):
        key = row["feature_id"], row["sign"]
        vector = SIGN_FACTORS[row["sign"]] * row["strength"] * directions[row["feature_id"]]
        label = LABEL_IDS[row["label"]]
        assert row["label"] == LABELS[row["feature_id"], "input"].label
        gain = brute_label_gain(model, vector, label)
        assert row["label_logprob_gain"] == pytest.approx(gain, abs=1e-4)
        steered = brute_output_score(model, vector, OWN[key])
        assert row["output_score"] == pytest.approx(steered, rel=1e-3)
        base = brute_output_score(model, 0 * vector, OWN[key])
        assert row["output_score_base"] == pytest.approx(base, rel=1e-3)
        assert row["n_label_tokens"] == len(label)
        assert row["status"] == ("ok" if key in READ else "partial")
        assert row["input_score"] == (READ[key].value if key in READ else None)


def test_the_rank_counts_all_tokens_that_are_likelier() -> None:
    logits = torch.log(torch.tensor([0.05, 0.4, 0.1, 0.3, 0.15]))
    assert rank_weighted_probability(logits, [4, 0]) == pytest.approx(0.15 * (1 - 2 / 5))
    assert rank_weighted_probability(logits, [1, 2]) == pytest.approx(0.4)
    assert rank_weighted_probability(logits, [0]) == pytest.approx(0.05 * (1 - 4 / 5))


def test_steering_towards_a_label_raises_its_log_probability_and_away_lowers_it() -> None:
    """The planted direction is the gradient of the label's log-probability at the site."""
    model = tiny_model("llama")
    width = len(next(iter(unit_directions(model, 1).values())))
    vector = torch.zeros(width, requires_grad=True)
    label = (8, 21)
    with add_at_site(model, SITE, vector + 1e-8):
        objective = torch.zeros(())
        for prompt in PROMPT_IDS:
            ids = torch.tensor([[*prompt, *label]])
            logits = model(input_ids=ids).logits[0].log_softmax(-1)
            objective = objective + sum(
                logits[len(prompt) - 1 + j, token] for j, token in enumerate(label)
            )
    objective.backward()
    assert vector.grad is not None
    directions = {10: vector.grad / vector.grad.norm()} | {
        11: unit_directions(model, 1, seed=5)[10]
    }
    calibrations = calibrations_of(model, directions)
    labels = {(i, "input"): ConceptLabel("planted", "input") for i in (10, 11)}
    run = scored(model, directions, calibrations, labels=labels, label_ids={"planted": label})
    rows = run.rows.filter(target_kl_nats=0.01)
    gains = {
        (i, sign): gain
        for i, sign, gain in rows.select("feature_id", "sign", "label_logprob_gain").iter_rows()
    }
    assert gains[10, "+"] > 0 > gains[10, "-"]
    random = [abs(gain) for (i, _), gain in gains.items() if i == 11 and gain is not None]
    assert gains[10, "+"] > max(random), "a random direction (null control) gains as much"


def test_each_sign_is_scored_on_the_labels_that_its_texts_are_judged_on() -> None:
    """As by the judge: of - never the label of what + promotes, and a missing one says so."""
    model = tiny_model("llama")
    directions = unit_directions(model, 2)
    calibrations = calibrations_of(model, directions)
    labels = LABELS | {
        (10, "output"): ConceptLabel("w5", "output"),
        (10, "output_minus"): ConceptLabel("w6 w7", "output_minus"),
        (11, "output"): ConceptLabel("w5", "output"),
    }
    kinds = kinds_by_sign(["input", "output"], "+-")
    run = scored(model, directions, calibrations, labels=labels, kinds=kinds)
    rows = run.rows.drop_nulls("strength")
    found = {
        (row["feature_id"], row["sign"], row["label_kind"]): row["label"]
        for row in rows.iter_rows(named=True)
    }
    assert found == {
        **{(10, "+", "input"): "w1 w2", (10, "-", "input"): "w1 w2"},
        **{(10, "+", "output"): "w5", (10, "-", "output_minus"): "w6 w7"},
        **{(11, "+", "input"): "w3", (11, "-", "input"): "w3"},
        **{(11, "+", "output"): "w5", (11, "-", "output_minus"): None},
    }
    for row in rows.drop_nulls("label").iter_rows(named=True):
        vector = SIGN_FACTORS[row["sign"]] * row["strength"] * directions[row["feature_id"]]
        gain = brute_label_gain(model, vector, LABEL_IDS[row["label"]])
        assert row["label_logprob_gain"] == pytest.approx(gain, abs=1e-4)
    missing = rows.filter(pl.col("label").is_null())
    assert missing["label_logprob_gain"].null_count() == len(missing) > 0
    assert all("labels.kinds has no output_minus" in reason for reason in missing["reason"])
    # What is not of the label is the same in all rows of a strength, and that of one kind alone.
    alone = scored(model, directions, calibrations).rows
    rest = ["feature_id", "sign", "target_kl_nats", "output_score", "output_score_base"]
    for _, part in run.rows.group_by("label_kind"):
        assert len(part.select(rest).join(alone, on=rest, nulls_equal=True)) == len(part)
    assert run.rows.filter(label_kind="input").equals(alone)
    # A new label of one kind leaves the rows of the other as they are.
    labels |= {(10, "output_minus"): ConceptLabel("w3", "output_minus")}
    again = scored(
        model, directions, calibrations, labels=labels, kinds=kinds, previous=stored(run)
    )
    changed = again.rows.filter(feature_id=10, label_kind="output_minus").drop_nulls("strength")
    assert again.rows_computed == len(changed) > 0


def test_nothing_changed_runs_nothing_and_a_new_label_its_own_feature_alone() -> None:
    model = tiny_model("gpt2")
    directions = unit_directions(model, 2)
    calibrations = calibrations_of(model, directions)
    first = scored(model, directions, calibrations)
    n_reached = len(calibrations.drop_nulls("strength"))
    assert (first.rows_computed, first.rows_reused) == (n_reached, 0)
    assert first.forward_tokens > 0 and first.layer_token_evaluations > 0
    with no_forward(model):
        again = scored(model, directions, calibrations, previous=stored(first))
        # What needs no model is put together anew.
        read = READ | {(10, "+"): InputScore(0.5, 4)}
        other = scored(model, directions, calibrations, previous=stored(first), input_scores=read)
    assert again.rows.equals(first.rows)
    assert (again.rows_reused, again.forward_tokens) == (n_reached, 0)
    assert set(other.rows.filter(feature_id=10, sign="+")["input_score"]) == {0.5}
    labels = LABELS | {(11, "input"): ConceptLabel("w5", "input")}
    changed = scored(model, directions, calibrations, previous=stored(first), labels=labels)
    of_eleven = calibrations.filter(feature_id=11).drop_nulls("strength")
    assert changed.rows_computed == len(of_eleven) > 0
    assert changed.rows.filter(feature_id=10).equals(first.rows.filter(feature_id=10))
    assert changed.rows.equals(scored(model, directions, calibrations, labels=labels).rows)
    assert changed.forward_tokens < first.forward_tokens
    revision = scored(
        model, directions, calibrations, previous=stored(first), made_by=("code", "r2")
    )
    assert revision.rows_reused == 0


def test_companions_do_not_change_a_row() -> None:
    model = tiny_model("gemma2")
    directions = unit_directions(model, 2)
    calibrations = calibrations_of(model, directions)
    together = scored(model, directions, calibrations).rows
    one = calibrations.filter(feature_id=11, sign="-", target_kl_nats=0.1)
    alone = scored(model, directions, one).rows
    assert alone.equals(together.filter(feature_id=11, sign="-", target_kl_nats=0.1))


def test_what_is_missing_is_null_with_a_reason() -> None:
    model = tiny_model("llama")
    directions = unit_directions(model, 2)
    calibrations = calibrations_of(model, directions).with_columns(
        strength=pl.when(feature_id=10, sign="-").then(None).otherwise("strength"),
        status=pl.when(feature_id=10, sign="-")
        .then(pl.lit("not_reached"))
        .otherwise(pl.col("status")),
        reason=pl.lit("KL stays below"),
    )
    failed = ConceptLabel(None, "input", "no input label: failed, timeout")
    labels = LABELS | {(11, "input"): failed}
    run = scored(model, directions, calibrations, labels=labels, own_tokens={})
    rows = run.rows
    assert rows["output_score"].null_count() == len(rows)
    missed = rows.filter(feature_id=10, sign="-")
    assert set(missed["status"]) == {"none"} and missed["row_fingerprint"].null_count() == 2
    assert "calibration not_reached, KL stays below" in missed["reason"][0]
    unlabelled = rows.filter(feature_id=11, sign="+").row(0, named=True)
    assert unlabelled["status"] == "partial" and unlabelled["input_score"] == 1.0
    assert "no input label: failed, timeout" in unlabelled["reason"]
    assert (unlabelled["label"], unlabelled["label_kind"]) == (None, "input")
    assert "output_score: no vocabulary projection" in unlabelled["reason"]


def test_input_scores_are_shares_of_top_peak_tokens_written() -> None:
    tokens = {
        (1, "top"): [" red", " Red", " red", " blue", " green", " red"],
        (1, "held_out"): [" red"],
        (2, "top"): [" sun"] * 5,
        (3, "held_out"): [" red"] * 9,
        # One context too few, whatever they say.
        (4, "top"): [" red"] * (FEWEST_CONTEXTS - 1),
    }
    contexts = pl.DataFrame(
        [
            (feature_id, kind, rank, token)
            for (feature_id, kind), peaks in tokens.items()
            for rank, token in enumerate(peaks)
        ],
        schema=["feature_id", "kind", "rank_in_kind", "token"],
        orient="row",
    )
    written = {(1, "+"): [" red", " green"], (1, "-"): [" sea"], (2, "+"): ["sun"]}
    written |= {(3, "+"): [" red"], (4, "+"): [" red"]}
    projection = pl.DataFrame(
        [
            (feature_id, sign, rank, token, 100 * feature_id + rank)
            for (feature_id, sign), tokens in written.items()
            for rank, token in enumerate([*tokens, *[f"x{i}" for i in range(20 - len(tokens))]])
        ]
        + [(1, "+", 20, " blue", 5)],
        schema=["feature_id", "sign", "rank_in_sign", "token", "token_id"],
        orient="row",
    )
    assert input_scores(contexts, projection) == {
        (1, "+"): InputScore(4 / 6, 6),
        (1, "-"): InputScore(0.0, 6),
        (2, "+"): InputScore(0.0, 5),
        (4, "+"): InputScore(None, 4),
    }
    assert first_tokens(projection.reverse())[1, "+"] == [100 + rank for rank in range(20)]


def test_too_few_contexts_are_no_score_of_0_but_a_reason_and_the_other_scores_stay() -> None:
    model = tiny_model("llama")
    directions = unit_directions(model, 2)
    few = READ | {(10, "+"): InputScore(None, 3)}
    run = scored(model, directions, calibrations_of(model, directions), input_scores=few)
    row = run.rows.filter(feature_id=10, sign="+", target_kl_nats=0.1).row(0, named=True)
    assert row["status"] == "partial" and row["input_score"] is None and row["n_contexts"] == 3
    assert row["reason"] == (
        "input_score: not attempted, 3 contexts; expected 5 at least (evidence.n_top)"
    )
    assert row["output_score"] is not None and row["label_logprob_gain"] is not None


def test_a_label_is_tokenized_as_the_going_on_of_a_prompt() -> None:
    tokenizer = word_tokenizer(adds_bos=True)
    assert label_token_ids(tokenizer, " w3 w4 ") == (7, 8)
    assert len(label_token_ids(tokenizer, "w1 " * 40)) == MOST_LABEL_TOKENS


def test_a_label_and_a_judge_are_no_part_of_calibrations() -> None:
    strengths = imported_closure([CALIBRATION_MODULE])
    assert not {name for name in strengths if "label" in name or "judge_free" in name}
    assert not {name for name in imported_closure([JUDGE_FREE_MODULE]) if "judging" in name}
