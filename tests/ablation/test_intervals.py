"""Means are pooled over tokens, intervals are t over documents, and hold at few of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import t

from assets.ablation.config import AblationConfig
from assets.ablation.effect_rows import effects_frame
from assets.ablation.tables import ABLATION_RUNS
from assets.ablation.targets import Targets

CONFIG = AblationConfig(ablations=("zero",))
TARGETS = {1: Targets(2.0, 0.1, ("a",), ())}


def effects_of(
    on: list[dict[str, Any]], off: list[dict[str, Any]], config: AblationConfig = CONFIG
) -> dict[str, Any]:
    """The feature's row, of runs with these sums; all others are 0."""
    zeros = {
        c.name: 0.0 for c in ABLATION_RUNS.columns if c.sql_type == "DOUBLE" and c.name != "site"
    }
    rows = [
        {
            "feature_id": 1,
            "ablation": "zero",
            "is_null": False,
            "document_id": f"{is_on} {i:03}",
            "is_on": is_on,
            "is_off": not is_on,
            "is_of_concept": False,
            "is_of_others": False,
            "n_tokens": 0,
            "n_tokens_strong": 0,
            "n_tokens_silent": 0,
            **zeros,
            **given,
        }
        for is_on, documents in ((True, on), (False, off))
        for i, given in enumerate(documents)
    ]
    frame = effects_frame(pl.DataFrame(rows), [1], TARGETS, {1}, config, None)
    return frame.filter(is_null=False).row(0, named=True)


def test_means_are_over_tokens_and_selectivity_is_their_difference() -> None:
    row = effects_of(
        [
            {"n_tokens_strong": 1, "delta_strong": 1.0, "n_tokens_silent": 2, "delta_silent": 3.0},
            {"n_tokens_strong": 3, "delta_strong": 5.0, "kl_strong": 2.0, "n_tokens_silent": 4},
        ],
        # Of strong tokens off target counts nothing, of weak ones all.
        [
            {"n_tokens": 15, "n_tokens_strong": 5, "delta": 5.0, "delta_strong": 3.0},
            {"n_tokens": 30, "kl": 4.0, "n_tokens_silent": 1},
        ],
    )
    assert (row["n_tokens_on"], row["n_tokens_near"], row["n_tokens_off"]) == (4, 6, 40)
    assert (row["n_documents_on"], row["n_documents_off"]) == (2, 2)
    assert (row["delta_on"], row["delta_near"], row["delta_off"]) == (1.5, 0.5, 0.05)
    assert row["selectivity"] == pytest.approx(1.45)
    assert (row["kl_on"], row["kl_off"]) == (0.5, 0.1)
    # Two documents whose sums are 0.5 off 1.5 a token: √(2 · (0.5² + 0.5²)) over 4 tokens.
    half = t.ppf(0.975, 1) * 0.25
    assert (row["delta_on_low"], row["delta_on_high"]) == pytest.approx((1.5 - half, 1.5 + half))
    assert row["delta_off_low"] < 0.05 < row["delta_off_high"]
    assert row["selectivity_low"] < 1.45 < row["selectivity_high"]


def test_documents_of_the_concept_count_whole_whatever_else_they_are() -> None:
    of_concept = {"is_of_concept": True, "n_tokens_strong": 1, "n_tokens": 4}
    row = effects_of(
        [of_concept | {"delta_strong": 9.0, "delta": 1.0, "kl": 2.0}, {"n_tokens_strong": 1}],
        [{"is_of_concept": True, "n_tokens": 6, "n_tokens_strong": 6, "delta": 4.0}],
    )
    assert (row["n_documents_concept"], row["n_tokens_concept"]) == (2, 10)
    assert (row["delta_concept"], row["kl_concept"]) == (0.5, 0.2)
    assert row["delta_concept_low"] < 0.25 < 2 / 3 < row["delta_concept_high"]
    assert row["delta_on"] == 4.5 and row["delta_off"] is None
    assert "every token of the documents drawn is strong" in row["reason"]
    without = effects_of([{"n_tokens_strong": 1, "n_tokens": 4, "delta": 1.0}], [])
    assert without["delta_concept"] is None and without["n_documents_concept"] == 0
    assert "no delta_concept, concept_selectivity" in without["reason"]


def test_concept_selectivity_is_over_all_tokens_of_documents_of_the_concept_and_of_others() -> None:
    on = [
        {"is_of_concept": True, "n_tokens_strong": 2, "n_tokens": 4, "delta": 8.0},
        {"is_of_concept": True, "n_tokens_strong": 1, "n_tokens": 4, "delta": 4.0},
    ]
    off = [
        {"is_of_others": True, "n_tokens_strong": 1, "n_tokens": 6, "delta": 9.0, "kl": 3.0},
        {"is_of_others": True, "n_tokens": 6, "delta": 3.0, "kl": 3.0},
    ]
    row = effects_of(on, off)
    assert (row["n_documents_other"], row["n_tokens_other"]) == (2, 12)
    assert (row["delta_concept"], row["delta_other"], row["kl_other"]) == (1.5, 1.0, 0.5)
    assert row["concept_selectivity"] == 0.5
    half = t.ppf(0.975, 1) * 0.5
    assert (row["delta_other_low"], row["delta_other_high"]) == pytest.approx((1 - half, 1 + half))
    assert row["concept_selectivity_low"] < 0 < row["concept_selectivity_high"]
    alone = effects_of(on, [])
    assert alone["concept_selectivity"] is None and alone["delta_concept"] == 1.5
    assert "no delta_other, concept_selectivity: no documents of other" in alone["reason"]
    one = effects_of(on, off[:1])
    assert one["concept_selectivity"] == 0.0 and one["concept_selectivity_low"] is None
    assert "no interval of concept_selectivity: one document on a side" in one["reason"]


def test_alike_documents_and_one_document_have_no_interval() -> None:
    same = {"n_tokens_strong": 2, "delta_strong": 1.0, "direct_effect": 4.0, "total_effect": 3.0}
    alike = effects_of([same] * 4, [{"n_tokens": 5, "delta": 1.0}] * 3)
    for name, value in (("delta_on", 0.5), ("selectivity", 0.3), ("self_repair", 0.25)):
        assert alike[name] == pytest.approx(value)
        assert alike[f"{name}_low"] is None and alike[f"{name}_high"] is None, name
        assert f"no interval of {name}: no spread between documents" in alike["reason"]
    assert alike["reason"].startswith("no near")
    one = effects_of([same], [])
    assert one["delta_on"] == 0.5 and one["self_repair"] == 0.25
    assert one["delta_on_low"] is None and one["self_repair_high"] is None
    assert one["selectivity"] is None and one["delta_off"] is None
    for said in ("no interval of delta_on: one document", "every token of the documents drawn"):
        assert said in one["reason"]


def test_self_repair_of_an_unsure_direct_effect_has_no_interval() -> None:
    def documents(directs: list[float]) -> list[dict[str, Any]]:
        return [{"n_tokens_strong": 1, "direct_effect": d, "total_effect": d / 2} for d in directs]

    sure = effects_of(documents([1.0, 1.1, 0.9, 1.2]), [])
    assert sure["self_repair"] == pytest.approx(0.5) and sure["self_repair_low"] is None
    assert "no interval of self_repair: no spread" in sure["reason"]
    unsure = effects_of(documents([1.0, -0.9, 0.8, -0.6]), [])
    assert unsure["self_repair"] == pytest.approx(0.5) and unsure["self_repair_low"] is None
    assert "that of the direct effect holds 0" in unsure["reason"]


@pytest.mark.parametrize(("n", "at_least_skewed"), [(2, 0.9), (3, 0.85), (8, 0.85)])
def test_intervals_hold_the_truth_as_often_as_they_say_at_few_documents(
    n: int, at_least_skewed: float
) -> None:
    """Self-repair at 3 and 8 documents; of two its direct effect seldom lets it have one."""
    generator = np.random.default_rng(n)
    hits: dict[str, list[bool]] = {"normal": [], "skewed": [], "self_repair": []}
    for i in range(700):
        is_normal = i % 2 == 0
        noise = generator.normal(0, 1, (2, n))
        if not is_normal:
            noise = generator.exponential(1, (2, n)) - 1
        direct = generator.normal(1, 0.3, n)
        total = 0.6 * direct + generator.normal(0, 0.1, n)
        on = [
            {"n_tokens_strong": 1, "delta_strong": v, "direct_effect": d, "total_effect": e}
            for v, d, e in zip(0.3 + noise[0], direct, total, strict=True)
        ]
        row = effects_of(on, [{"n_tokens": 1, "delta": 0.1 + v} for v in noise[1]])
        held = row["selectivity_low"] <= 0.2 <= row["selectivity_high"]
        hits["normal" if is_normal else "skewed"].append(held)
        if row["self_repair_low"] is not None:
            hits["self_repair"].append(row["self_repair_low"] <= 0.4 <= row["self_repair_high"])
    assert np.mean(hits["normal"]) >= 0.92
    assert np.mean(hits["skewed"]) >= at_least_skewed
    if n > 2:
        assert len(hits["self_repair"]) > 400 and np.mean(hits["self_repair"]) >= 0.92


def test_documents_both_on_and_off_target_count_once_in_the_spread_of_their_difference() -> None:
    """A document's own level moves both sides alike, so it is no part of the difference."""
    generator = np.random.default_rng(0)
    level = generator.normal(0, 1, 8)
    documents = [
        {
            "is_off": True,
            "n_tokens_strong": 4,
            "delta_strong": 4 * (v + 0.5 + generator.normal(0, 0.1)),
            "n_tokens": 8,
            "delta": 8 * v,
        }
        for v in level
    ]
    for one in documents:
        one["delta"] = one["delta_strong"] + 4 * (one["delta"] / 8)
    row = effects_of(documents, [])
    assert row["n_documents_off"] == 8
    width = row["selectivity_high"] - row["selectivity_low"]
    assert width < 0.3 < 1 < row["delta_on_high"] - row["delta_on_low"]
    assert row["selectivity"] == pytest.approx(0.5, abs=0.15)
