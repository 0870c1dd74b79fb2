"""Features against the null controls: p by its definition, planted ones found, nulls kept.

What a kind of control tells and another does not is test_kinds_of_control.py.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.comparison.config import ComparisonConfig
from assets.comparison.feature_significance import (
    EVERY,
    fewest_controls,
    fewest_together,
    p_against_controls,
    significance_rows,
)
from assets.comparison.tables import FEATURE_SIGNIFICANCE
from tests.comparison.planted_fits import PARTITION, planted_fit

CONFIG = ComparisonConfig()
Scores = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=12)


def of_auroc(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(metric="concept_auroc", control=EVERY)


@given(Scores, Scores)
def test_p_is_the_share_of_controls_that_score_as_high(
    values: list[float], controls: list[float]
) -> None:
    found = p_against_controls(np.array(values), np.sort(controls))
    n = len(controls)
    expected = [(1 + sum(one >= value for one in controls)) / (1 + n) for value in values]
    np.testing.assert_allclose(found, expected)


def test_planted_features_are_found_and_the_others_are_not() -> None:
    generator = np.random.default_rng(0)
    scores = np.concatenate([generator.normal(5, 1, 20), generator.normal(0, 1, 20)])
    fits = [
        planted_fit("snmf-k040", scores),
        planted_fit("random-k200", generator.normal(0, 1, 200), is_control=True),
        planted_fit("permuted-k200", generator.normal(0, 1, 200), is_control=True),
    ]
    rows = significance_rows(fits, CONFIG)
    FEATURE_SIGNIFICANCE.conform(rows, PARTITION)
    tested = of_auroc(rows)
    assert set(tested["fit"]) == {"snmf-k040"} and set(tested["n_controls"]) == {200}
    assert tested["is_significant"][:20].to_list() == [True] * 20
    assert tested["is_significant"][20:].sum() <= 2


def test_false_discoveries_among_those_called_stay_below_the_level() -> None:
    """Many sites: all features null, or some planted; controls are few and shared."""
    generator = np.random.default_rng(1)
    level = 0.2
    any_called, false_shares = [], []
    for _ in range(300):
        null = generator.normal(size=30)
        half = np.concatenate([generator.normal(4, 1, 10), null[:20]])
        controls = planted_fit("random-k060", generator.normal(size=60), is_control=True)
        config = ComparisonConfig(fdr=level)
        fits = [planted_fit("pca-k030", null), planted_fit("snmf-k030", half), controls]
        rows = of_auroc(significance_rows(fits, config))
        of_null = rows.filter(fit="pca-k030")["is_significant"]
        of_half = rows.filter(fit="snmf-k030")["is_significant"]
        any_called.append(of_null.any())
        false_shares.append(int(of_half[10:].sum()) / max(int(of_half.sum()), 1))
    assert 0 < np.mean(any_called) <= level + 0.03
    assert np.mean(false_shares) <= level
    # The control of the procedure itself: uncorrected p-values do call null features.
    assert np.mean(false_shares) > 0


def test_what_cannot_be_told_is_null_with_a_reason() -> None:
    alone = of_auroc(significance_rows([planted_fit("snmf-k002", [0.9, None])], CONFIG))
    FEATURE_SIGNIFICANCE.conform(alone, PARTITION)
    assert alone["status"].to_list() == ["no_controls", "no_value"]
    assert "add fits of method covariance" in alone["reason"][0]
    assert alone["p_value"].null_count() == alone["is_significant"].null_count() == 2

    few = [
        planted_fit("snmf-k002", [0.9, None]),
        planted_fit("random-k018", np.linspace(0.3, 0.6, 18), is_control=True),
    ]
    row = of_auroc(significance_rows(few, CONFIG)).row(0, named=True)
    assert (row["status"], row["is_significant"]) == ("too_few_controls", None)
    assert row["p_value"] == pytest.approx(1 / 19) and "19 are needed" in row["reason"]
    (of_random,) = (
        significance_rows(few, CONFIG)
        .filter(metric="concept_auroc", control="random", feature_id=0)
        .to_dicts()
    )
    assert of_random["control_max"] == pytest.approx(0.6) and row["control_max"] is None

    enough = [few[0], planted_fit("random-k019", np.linspace(0.3, 0.6, 19), is_control=True)]
    row = of_auroc(significance_rows(enough, CONFIG)).row(0, named=True)
    assert (row["status"], row["reason"], row["is_significant"]) == ("ok", None, True)


@pytest.mark.parametrize(("fdr", "expected"), [(0.05, 19), (0.1, 9), (0.2, 4), (0.5, 1)])
def test_fewest_controls_are_those_with_which_p_reaches_the_level(
    fdr: float, expected: int
) -> None:
    assert fewest_controls(fdr) == expected
    assert 1 / (1 + expected) <= fdr + 1e-12 < 1 / expected


@pytest.mark.parametrize(("n_features", "n_controls"), [(30, 20), (30, 599), (7, 41), (40, 19)])
def test_fewest_together_are_those_with_which_the_family_has_a_discovery(
    n_features: int, n_controls: int
) -> None:
    controls = planted_fit("random-k999", np.linspace(0, 1, n_controls), is_control=True)
    needed = fewest_together(n_features, n_controls, 0.05)
    for n_above in (needed - 1, needed):
        scores = [2.0] * n_above + [-1.0] * (n_features - n_above)
        rows = of_auroc(significance_rows([planted_fit("snmf-k040", scores), controls], CONFIG))
        assert set(rows["status"]) == {"ok"} and rows["is_significant"].null_count() == 0
        assert rows["is_significant"].sum() == (n_above if n_above == needed else 0)
        (reason,) = rows["reason"].unique()
        assert reason is None if needed == 1 else f" {needed} features or more" in reason


def test_the_reason_names_the_controls_that_one_feature_alone_needs() -> None:
    def rows(n_controls: int) -> pl.DataFrame:
        scores = np.linspace(0, 1, n_controls)
        controls = planted_fit("random-k999", scores, is_control=True)
        fits = [planted_fit("snmf-k030", [2.0] + [-1.0] * 29), controls]
        return of_auroc(significance_rows(fits, CONFIG))

    assert " 29 features or more" in rows(20)["reason"][0]
    assert "599 controls are needed" in rows(20)["reason"][0]
    assert (rows(598)["is_significant"].sum(), rows(599)["is_significant"].sum()) == (0, 1)


def test_each_fit_and_metric_is_a_family_of_its_own() -> None:
    controls = planted_fit("random-k040", np.linspace(0, 1, 40), is_control=True)
    one = planted_fit("snmf-k001", [2.0])
    beside_many = planted_fit("pca-k101", [2.0] + [0.0] * 100)
    q = {
        row["fit"]: row["q_value"]
        for row in of_auroc(significance_rows([one, beside_many, controls], CONFIG))
        .filter(feature_id=0)
        .to_dicts()
    }
    assert q["snmf-k001"] == pytest.approx(1 / 41)
    assert q["pca-k101"] == pytest.approx(1.0)
