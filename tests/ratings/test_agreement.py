"""Spearman against scipy, planted agreement found, and what is undefined says so."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from assets.ratings.agreement import (
    MEAN_OF_RATERS,
    cluster_draws,
    rating_agreement,
    spearman,
)
from assets.ratings.tables import RATING_AGREEMENT

Ratings = list[tuple[str, str, str, float]]


def agreed(
    ratings: Ratings,
    judged: dict[str, float],
    features: dict[str, int] | None = None,
    **options: object,
) -> pl.DataFrame:
    """Agreement of `ratings` with a judge; each item is of a feature of its own unless told."""
    keys = pl.DataFrame(
        [(item, "concept", "graded small", value) for item, value in judged.items()],
        schema=["item", "question", "judge", "judge_rating"],
        orient="row",
    )
    frame = pl.DataFrame(ratings, schema=["item", "question", "rater", "rating"], orient="row")
    items = sorted(set(frame["item"]))
    of_item = features or {item: number for number, item in enumerate(items)}
    frame = frame.with_columns(
        site=pl.lit("s"),
        fit=pl.lit("f"),
        feature_id=pl.col("item").replace_strict(of_item, return_dtype=pl.Int32),
    )
    arguments = {"n_bootstrap": 300, "confidence": 0.95, "seed": 0} | options
    rows = rating_agreement(frame, keys, **arguments)
    return RATING_AGREEMENT.conform(rows, {"study": "mini"})


def planted(n: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Ratings 0, 1, 2 of what a judge gives on a scale, with noise."""
    rng = np.random.default_rng(seed)
    judge = rng.uniform(0, 2, size=n)
    return np.clip(np.round(judge + noise * rng.normal(size=n)), 0, 2), judge


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1.0, 2.0]), st.floats(0, 2)), min_size=3, max_size=30)
)
@settings(max_examples=100, deadline=None)
def test_spearman_is_scipys(pairs: list[tuple[float, float]]) -> None:
    x, y = np.array(pairs).T
    found = float(spearman(x, y))
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(spearmanr(x, y).statistic, abs=1e-9)


def test_planted_agreement_is_found_and_its_interval_holds_it() -> None:
    human, judge = planted(60, noise=0.4)
    ratings = [(f"i{i}", "concept", "Ada", float(v)) for i, v in enumerate(human)]
    row = agreed(ratings, {f"i{i}": float(v) for i, v in enumerate(judge)}).row(0, named=True)
    assert row["spearman"] == pytest.approx(spearmanr(human, judge).statistic)
    assert 0.5 < row["spearman_low"] < row["spearman"] < row["spearman_high"] < 1
    assert (row["first"], row["second"], row["compared"]) == (
        MEAN_OF_RATERS,
        "graded small",
        "judge",
    )
    assert (row["n_items"], row["n_raters"], row["status"]) == (60, 1, "ok")
    assert row["mean_first"] == pytest.approx(human.mean())


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Control: ratings that have nothing to do with the judge's."""
    n_in = 0
    for seed in range(60):
        human, _ = planted(40, 0.4, seed)
        judge = np.random.default_rng(1000 + seed).uniform(0, 2, size=40)
        ratings = [(f"i{i:02d}", "concept", "Ada", float(v)) for i, v in enumerate(human)]
        judged = {f"i{i:02d}": float(v) for i, v in enumerate(judge)}
        row = agreed(ratings, judged, n_bootstrap=200).row(0, named=True)
        n_in += row["spearman_low"] <= 0 <= row["spearman_high"]
    assert 50 <= n_in <= 60


def clustered(
    n_features: int, n_items: int, seed: int
) -> tuple[Ratings, dict[str, float], dict[str, int]]:
    """Ratings that people and judge give to a feature rather than to its texts."""
    rng = np.random.default_rng(seed)
    of_feature = rng.uniform(0, 2, size=n_features)
    off = rng.normal(scale=0.6, size=n_features)
    ratings, judged, features = [], {}, {}
    for feature in range(n_features):
        for text in range(n_items):
            item = f"i{feature:02d}-{text:02d}"
            human = of_feature[feature] + off[feature] + 0.1 * rng.normal()
            ratings.append((item, "concept", "Ada", float(np.clip(round(human), 0, 2))))
            judged[item] = float(of_feature[feature] + 0.1 * rng.normal())
            features[item] = feature
    return ratings, judged, features


def width(row: dict[str, float]) -> float:
    return row["spearman_high"] - row["spearman_low"]


def test_texts_of_one_feature_count_as_one_so_the_interval_is_wider() -> None:
    for seed in range(5):
        ratings, judged, features = clustered(10, 8, seed)
        by_feature = agreed(ratings, judged, features).row(0, named=True)
        by_item = agreed(ratings, judged).row(0, named=True)
        assert by_feature["spearman"] == by_item["spearman"]
        assert (by_feature["n_items"], by_feature["n_features"]) == (80, 10)
        assert (by_item["n_items"], by_item["n_features"]) == (80, 80)
        assert width(by_feature) > 1.5 * width(by_item)


def test_clustered_items_interval_holds_the_truth_and_that_over_items_does_not() -> None:
    """Control: nothing to agree about, but each side rates a feature's texts alike."""
    n_in = {"features": 0, "items": 0}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        human, judge = rng.integers(0, 3, size=12), rng.uniform(0, 2, size=12)
        names = [(f"i{f:02d}-{t}", f) for f in range(12) for t in range(6)]
        ratings: Ratings = [(item, "concept", "Ada", float(human[f])) for item, f in names]
        judged = {item: float(judge[f]) for item, f in names}
        for name, features in (("features", dict(names)), ("items", None)):
            row = agreed(ratings, judged, features, n_bootstrap=200).row(0, named=True)
            n_in[name] += row["spearman_low"] <= 0 <= row["spearman_high"]
    assert n_in["features"] >= 36 and n_in["items"] <= 30, n_in


def test_with_one_item_a_feature_the_interval_is_the_bootstrap_over_items() -> None:
    human, judge = planted(30, noise=0.5)
    ratings = [(f"i{i:02d}", "concept", "Ada", float(v)) for i, v in enumerate(human)]
    row = agreed(ratings, {f"i{i:02d}": float(v) for i, v in enumerate(judge)}).row(0, named=True)
    draws = np.random.default_rng(0).integers(30, size=(300, 30))
    low, high = np.quantile(spearman(human[draws], judge[draws]), [0.025, 0.975])
    assert row["spearman_low"] == pytest.approx(low, abs=1e-12)
    assert row["spearman_high"] == pytest.approx(high, abs=1e-12)
    assert row["n_features"] == row["n_items"] == 30


def test_a_draw_takes_features_whole() -> None:
    clusters = np.array([0, 1, 0, 2, 1, 1])
    sizes = np.bincount(clusters)
    for drawn in cluster_draws(clusters, 50, seed=3):
        counts = np.bincount(drawn, minlength=6)
        assert all(len(set(counts[clusters == c])) == 1 for c in range(3))
        assert sum(counts[clusters == c].max() for c in range(3)) == 3
        assert len(drawn) == sum(counts[clusters == c].max() * sizes[c] for c in range(3))


def test_few_features_have_no_interval_and_say_so() -> None:
    ratings, judged, features = clustered(4, 10, seed=0)
    row = agreed(ratings, judged, features).row(0, named=True)
    assert row["status"] == "ok" and row["spearman"] is not None
    assert row["spearman_low"] is None and row["spearman_high"] is None
    assert row["reason"] == "no interval: items of 4 features; expected 5 at least"


def test_raters_are_averaged_an_item_and_compared_two_by_two() -> None:
    human, judge = planted(30, noise=0.3)
    other = np.clip(human + np.arange(30) % 2, 0, 2)
    ratings = [(f"i{i:02d}", "concept", "Ada", float(v)) for i, v in enumerate(human)]
    # Bo rated the first 20 items only, one of them on two sheets.
    ratings += [(f"i{i:02d}", "concept", "Bo", float(v)) for i, v in enumerate(other[:20])]
    ratings += [("i00", "concept", "Bo", float(2 - other[0]))]
    rows = agreed(ratings, {f"i{i:02d}": float(v) for i, v in enumerate(judge)})
    bo = other[:20].copy()
    bo[0] = 1.0
    mean = human.copy()
    mean[:20] = (human[:20] + bo) / 2
    with_judge, between = (rows.filter(compared=c).row(0, named=True) for c in ("judge", "raters"))
    assert with_judge["spearman"] == pytest.approx(spearmanr(mean, judge).statistic)
    assert with_judge["n_raters"] == 2
    assert (between["first"], between["second"], between["n_items"]) == ("Ada", "Bo", 20)
    assert between["spearman"] == pytest.approx(spearmanr(human[:20], bo).statistic)
    assert len(rows) == 2


def test_what_has_no_ranks_is_undefined_with_a_reason() -> None:
    two = agreed([("i0", "concept", "A", 1.0), ("i1", "concept", "A", 2.0)], {"i0": 1, "i1": 0})
    assert two["spearman"].null_count() == 1 and "2 items rated by both" in two["reason"][0]
    equal = [(f"i{i}", "concept", "A", 1.0) for i in range(5)]
    same = agreed(equal, {f"i{i}": float(i) for i in range(5)}).row(0, named=True)
    assert same["status"] == "undefined" and "first are equal" in same["reason"]
    assert same["mean_first"] == 1.0
    nobody = agreed(equal, {"other": 1.0})
    assert nobody.is_empty()


def test_the_same_seed_gives_the_same_rows() -> None:
    human, judge = planted(20, 0.5)
    ratings = [(f"i{i:02d}", "concept", "Ada", float(v)) for i, v in enumerate(human)]
    judged = {f"i{i:02d}": float(v) for i, v in enumerate(judge)}
    assert agreed(ratings, judged).equals(agreed(ratings[::-1], judged))
    assert not agreed(ratings, judged).equals(agreed(ratings, judged, seed=1))
