"""Pooled steering scores against plain Python, and that the held-out best is not optimistic."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from scipy.stats import t as student

from assets.steering.feature_tables import STEERING_SUMMARIES
from assets.steering.plots import mean_score_plot, mean_scores
from assets.steering.summaries import POOLINGS, steering_summaries

PARTITION = {"site": "s", "fit": "f"}
TARGETS = (0.1, 0.25, 0.5)
Score = Callable[[str, float, int], float | None]


def scores_of(
    score: Score, base: Score, n_texts: int = 8, feature_id: int = 3, kind: str = "input"
) -> pl.DataFrame:
    settings = [(sign, target) for sign in "+-" for target in TARGETS]
    rows = []
    for sign, target in [("0", 0.0), *settings]:
        for index in range(n_texts):
            value = (base if sign == "0" else score)(sign, target, index)
            rows.append(
                {
                    "feature_id": feature_id,
                    "sign": sign,
                    "target_kl_nats": target,
                    "text_index": index,
                    "label": "weekdays",
                    "label_kind": kind,
                    "score": value,
                    "concept_rating": None if value is None else value / 2,
                    "fluency_rating": None if value is None else 2.0,
                    "status": "failed" if value is None else "ok",
                    "reason": "timeout" if value is None else None,
                }
            )
    return pl.DataFrame(rows, schema_overrides={"feature_id": pl.Int32, "score": pl.Float64})


def summarized(scores: pl.DataFrame) -> pl.DataFrame:
    rows = steering_summaries(scores, confidence=0.95)
    return STEERING_SUMMARIES.conform(rows, PARTITION)


def one(rows: pl.DataFrame, sign: str, pooling: str) -> dict:
    return rows.filter(sign=sign, pooling=pooling).row(0, named=True)


def planted(sign: str, target: float, index: int) -> float:
    """Noise that no setting stands out from but - at 0.25, and there odd texts most."""
    noise = np.random.default_rng([int(target * 100), index, sign == "+"]).uniform(0, 0.2)
    return float(noise + (1.0 + 0.3 * (index % 2) if (sign, target) == ("-", 0.25) else 0.0))


def test_a_planted_best_setting_is_found_and_measured_as_written_out() -> None:
    rows = summarized(scores_of(planted, lambda *_: 0.25))
    assert len(rows) == 3 * 3
    best = [planted("-", 0.25, i) for i in range(8)]
    for sign in ("-", "either"):
        for pooling in ("best_kl", "best_kl_held_out"):
            row = one(rows, sign, pooling)
            assert (row["chosen_sign"], row["target_kl_nats"]) == ("-", 0.25)
            assert row["score"] == pytest.approx(np.mean(best))
            assert row["gain"] == pytest.approx(np.mean(best) - 0.25)
            assert row["concept_mean"] == pytest.approx(np.mean(best) / 2)
            assert row["fluency_mean"] == 2.0
            assert row["n_texts"] == 8 and row["status"] == "ok"
    assert one(rows, "+", "best_kl")["score"] < 0.25
    every = [planted("-", target, i) for target in TARGETS for i in range(8)]
    row = one(rows, "-", "mean_kl")
    assert row["score"] == pytest.approx(np.mean(every)) and row["target_kl_nats"] is None
    assert (row["n_texts"], row["n_judged"], row["n_expected"]) == (24, 24, 24)
    assert one(rows, "either", "mean_kl")["n_expected"] == 48


def test_the_setting_is_chosen_on_the_other_half() -> None:
    def split(sign: str, target: float, index: int) -> float:
        """Even texts score at 0.1 alone, odd ones at 0.5 alone."""
        return 2.0 * (target == (0.1, 0.5)[index % 2])

    row = one(summarized(scores_of(split, lambda *_: 0.0)), "+", "best_kl_held_out")
    assert row["score"] == 0.0, "what is best on even texts says nothing of odd ones"
    assert row["target_kl_nats"] is None and row["chosen_sign"] == "+"
    assert one(summarized(scores_of(split, lambda *_: 0.0)), "+", "best_kl")["score"] == 1.0


def test_of_pure_noise_the_best_gains_and_the_held_out_best_does_not() -> None:
    rng = np.random.default_rng(0)
    frame = pl.concat(
        [
            scores_of(
                lambda *_: float(rng.uniform(0, 2)),
                lambda *_: float(rng.uniform(0, 2)),
                feature_id=feature_id,
            )
            for feature_id in range(150)
        ]
    )
    rows = summarized(frame).filter(sign="either")
    gain = dict(rows.group_by("pooling").agg(pl.col("gain").mean()).iter_rows())
    assert gain["best_kl"] > 0.15
    assert abs(gain["best_kl_held_out"]) < 0.06 and abs(gain["mean_kl"]) < 0.06
    assert rows.filter(pooling="best_kl")["gain_low"].null_count() == 150


@pytest.mark.parametrize("n_texts", [2, 3, 8])
def test_of_pure_noise_intervals_hold_a_gain_of_0_as_often_as_they_say(n_texts: int) -> None:
    generator = np.random.default_rng(n_texts)
    level = generator.normal(0.9, 0.2, n_texts)

    def noise(sign: str, target: float, index: int) -> float:
        return float(np.clip(level[index] + generator.normal(0, 0.25), 0, 2))

    frames = [scores_of(noise, noise, n_texts, feature_id) for feature_id in range(400)]
    rows = summarized(pl.concat(frames)).filter(pl.col("pooling") != "best_kl", sign="either")
    assert (rows["gain_low"] < rows["gain_high"]).all() and rows["gain_low"].null_count() == 0
    covered = rows.with_columns(is_in=(pl.col("gain_low") <= 0) & (pl.col("gain_high") >= 0))
    share = dict(covered.group_by("pooling").agg(pl.col("is_in").mean()).iter_rows())
    assert share["mean_kl"] >= 0.92 and share["best_kl_held_out"] >= 0.92


def test_intervals_are_t_over_texts_of_the_gain_within_a_text() -> None:
    """Steered text i is about 0.5 above base text i, which varies much: the gain is sure."""
    more = [0.45, 0.5, 0.55, 0.5, 0.48, 0.52, 0.5, 0.5]

    def base(sign: str, target: float, index: int) -> float:
        return 0.2 * index

    def gain(sign: str, target: float, index: int) -> float:
        return more[index] + (0.01 if sign == "+" else -0.01)

    rows = summarized(scores_of(lambda s, t, i: base(s, t, i) + gain(s, t, i), base))
    row = one(rows, "either", "mean_kl")
    half = student.ppf(0.975, 7) * np.std(more, ddof=1) / np.sqrt(8)
    assert (row["gain_low"], row["gain_high"]) == pytest.approx((0.5 - half, 0.5 + half))
    alike = summarized(scores_of(lambda s, t, i: base(s, t, i) + 0.5, base))
    assert alike["gain"].to_list() == pytest.approx([0.5] * 9)
    assert alike["gain_low"].null_count() == alike["gain_high"].null_count() == 9, "no spread"


def test_what_was_not_judged_is_left_out_and_counted() -> None:
    def some(sign: str, target: float, index: int) -> float | None:
        return None if (sign == "+" or index == 3) else 1.0

    rows = summarized(scores_of(some, lambda *_: 0.5))
    missing = one(rows, "+", "best_kl")
    assert (missing["status"], missing["score"], missing["gain"]) == ("none", None, None)
    assert missing["n_judged"] == 0 and "timeout" in missing["reason"]
    assert missing["base_score"] is None
    partial = one(rows, "either", "mean_kl")
    assert (partial["status"], partial["score"]) == ("partial", 1.0)
    assert (partial["n_texts"], partial["n_judged"], partial["n_expected"]) == (21, 21, 48)
    assert partial["reason"] == "27 of 48 texts not judged: timeout"
    whole = summarized(scores_of(lambda *_: 1.0, lambda *_: 0.5))
    assert one(whole, "either", "mean_kl")["score"] == partial["score"]


def test_a_setting_with_few_judged_texts_is_not_chosen() -> None:
    def lucky(sign: str, target: float, index: int) -> float | None:
        """+ at 0.5 has one judged text of six, a 2; at 0.25 half of them, each 1."""
        if (sign, target) == ("+", 0.5):
            return 2.0 if index == 0 else None
        if (sign, target) == ("+", 0.25):
            return 1.0 if index < 3 else None
        return 0.5

    rows = summarized(scores_of(lucky, lambda *_: 0.25, n_texts=6))
    best = one(rows, "either", "best_kl")
    assert (best["chosen_sign"], best["target_kl_nats"], best["score"]) == ("+", 0.25, 1.0)
    assert (best["n_texts"], best["gain"]) == (3, 0.75)

    def few(sign: str, target: float, index: int) -> float | None:
        return 1.0 if index < 2 else None

    alone = one(summarized(scores_of(few, lambda *_: 0.25, n_texts=6)), "either", "best_kl")
    assert (alone["status"], alone["score"], alone["n_judged"]) == ("none", None, 12)
    assert "half of its texts" in alone["reason"] and "timeout" in alone["reason"]


def test_texts_that_were_not_judged_do_not_move_the_gain() -> None:
    """Text i is 0.3 above base text i, which varies: whatever is missing, the gain is 0.3."""

    def base(sign: str, target: float, index: int) -> float | None:
        return None if index == 0 else 0.2 * index

    def steered(sign: str, target: float, index: int) -> float | None:
        return None if index > 4 else 0.2 * index + 0.3

    rows = summarized(scores_of(steered, base))
    assert set(rows["pooling"]) == set(POOLINGS)
    for row in rows.iter_rows(named=True):
        assert row["gain"] == pytest.approx(0.3), row["pooling"]
        assert row["base_score"] == pytest.approx(0.2 * np.mean([1, 2, 3, 4]))
        assert row["status"] == "partial" and "have no base score" in row["reason"]
    best = one(rows, "+", "best_kl")
    assert best["n_texts"] == 5 and "the gain is over 4 of 5 texts" in best["reason"]


def test_a_held_out_best_of_one_half_says_so() -> None:
    def even(sign: str, target: float, index: int) -> float | None:
        """All even texts and one odd one: even texts can choose, odd ones can't."""
        return 1.0 if index % 2 == 0 or index == 1 else None

    row = one(summarized(scores_of(even, lambda *_: 0.5)), "+", "best_kl_held_out")
    assert (row["status"], row["n_texts"], row["gain"]) == ("partial", 1, 0.5)
    assert "measured on odd text_index only" in row["reason"]
    assert row["gain_low"] is None, "one text has no interval"


def test_one_text_has_no_other_half_and_no_interval() -> None:
    rows = summarized(scores_of(lambda *_: 1.0, lambda *_: 0.5, n_texts=1))
    held_out = one(rows, "either", "best_kl_held_out")
    assert held_out["status"] == "none" and "one parity" in held_out["reason"]
    best = one(rows, "either", "best_kl")
    assert best["gain"] == 0.5 and best["gain_low"] is None
    # Equal means: the weakest setting stands.
    assert best["target_kl_nats"] == 0.1


def test_without_base_texts_there_is_a_score_and_no_gain() -> None:
    rows = summarized(scores_of(lambda *_: 1.0, lambda *_: None))
    assert set(rows["status"]) == {"partial"} and rows["gain"].null_count() == len(rows)
    assert set(rows["score"]) == {1.0}
    empty = steering_summaries(scores_of(lambda *_: 1.0, lambda *_: 1.0).clear(), confidence=0.9)
    assert empty.is_empty() and empty.columns == STEERING_SUMMARIES.column_names[2:]


def test_each_judged_label_is_pooled_by_itself_and_each_sign_over_its_own_base() -> None:
    """Output labels differ by sign: a gain of - is over base texts judged on the label of -."""
    level = {"input": 0.5, "output": 1.0, "output_minus": 1.5}
    base = {"input": 0.1, "output": 0.2, "output_minus": 0.9}
    every = pl.concat(
        [
            scores_of(lambda *_, k=kind: level[k], lambda *_, k=kind: base[k], kind=kind)
            .filter(pl.col("sign").is_in(["0", *signs]))
            .with_columns(label=pl.lit(f"{kind} label"))
            for kind, signs in (("input", "+-"), ("output", "+"), ("output_minus", "-"))
        ]
    )
    rows = summarized(every)
    assert set(rows["label_kind"]) == {"input", "output"} and len(rows) == 2 * 3 * 3
    alone = summarized(every.filter(label_kind="input"))
    assert rows.filter(label_kind="input").equals(alone)
    output = rows.filter(label_kind="output")
    for sign, kind in (("+", "output"), ("-", "output_minus"), ("either", "output_minus")):
        row = one(output, sign, "best_kl")
        assert (row["score"], row["base_score"]) == (level[kind], base[kind])
        assert row["gain"] == pytest.approx(level[kind] - base[kind])
        assert row["label"] == f"{kind} label"
    either = one(output, "either", "mean_kl")
    assert either["gain"] == pytest.approx((0.8 + 0.6) / 2) and either["label"] is None


def test_mean_scores_say_how_many_texts_they_are_over() -> None:
    def missing(sign: str, target: float, index: int) -> float | None:
        return None if (sign, target) == ("-", 0.5) and index > 1 else 1.0

    scores = scores_of(missing, lambda *_: 0.25)
    shown = mean_scores(scores).filter(sign="-", target_kl_nats=0.5).row(0, named=True)
    assert (shown["score"], shown["n"], shown["n_texts"]) == (1.0, 2, 8)
    assert "data:image" in mean_score_plot(scores)
    assert "data:image" in mean_score_plot(scores.clear())


def test_same_scores_same_table_in_any_order() -> None:
    scores = scores_of(planted, lambda *_: 0.25)
    assert summarized(scores).equals(summarized(scores.reverse()))
    assert set(summarized(scores)["pooling"]) == set(POOLINGS)
