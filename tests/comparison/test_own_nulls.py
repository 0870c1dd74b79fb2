"""Features against their own permuted nulls: told apart where they differ, seldom where not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from assets.comparison import metrics
from assets.comparison.config import ComparisonConfig
from assets.comparison.fits import ComparedFit
from assets.comparison.paired_tests import paired_test_rows
from tests.comparison.paired_rows import CONFIG, OF_FITS, by_fit, checked_rows
from tests.comparison.planted_fits import NOT_SHUFFLED, planted_fit

NO_BOOTSTRAP = ComparisonConfig(n_bootstrap=0)


def ablated_fit(
    key: str,
    own: Sequence[float | None] | np.ndarray,
    null: Sequence[float | None] | np.ndarray,
    *,
    is_control: bool = False,
) -> ComparedFit:
    """A fit with these selectivities of its features, and of their permuted nulls."""
    fit = planted_fit(key, own, is_control=is_control, metric="ablation_selectivity")
    nulls = pl.Series("ablation_selectivity_null", null, dtype=pl.Float64)
    return replace(fit, features=fit.features.with_columns(nulls))


def of_nulls(fits: list[ComparedFit], config: ComparisonConfig = CONFIG) -> dict[str, dict]:
    """The tests of features against their own permuted nulls, by fit."""
    rows = checked_rows(fits, config=config).filter(metric="ablation_selectivity")
    return by_fit(rows, "permuted_null")


def test_features_that_do_more_than_their_own_nulls_are_told_from_those_that_do_not() -> None:
    """Nulls differ far more among themselves than features do from them."""
    generator = np.random.default_rng(7)
    size, noise = generator.uniform(0, 2, 20), generator.normal(0, 0.05, (2, 20))
    better = ablated_fit("snmf-k020", size + 0.1 + noise[0], size)
    equal = ablated_fit("sae-k020", size + noise[1], size)
    # A control writes little, and so does its null: beside it, both of the others look large.
    control = ablated_fit(
        "random-k020", generator.normal(0, 0.01, 20), generator.normal(0, 0.01, 20), is_control=True
    )
    found = of_nulls([better, equal, control])
    assert [row["is_significant"] for row in found.values()] == [True, False, False]
    row = found["snmf-k020"]
    assert (row["metric"], row["fit_b"], row["n_pairs"]) == (
        "ablation_selectivity",
        "snmf-k020",
        20,
    )
    assert row["difference_low"] > 0 and not row["is_control_b"]
    assert found["random-k020"]["is_control_b"]
    against_control = paired_test_rows([better, equal, control], NOT_SHUFFLED, CONFIG).filter(
        OF_FITS, metric="ablation_selectivity", is_control_b=True
    )
    assert against_control["is_significant"].all()


def test_under_the_null_a_feature_seldom_differs_from_its_own() -> None:
    generator = np.random.default_rng(8)
    small = [
        of_nulls([ablated_fit("snmf-k012", *generator.normal(size=(2, 12)))], NO_BOOTSTRAP)[
            "snmf-k012"
        ]["p_value"]
        for _ in range(200)
    ]
    assert np.mean(np.array(small) <= 0.05) == pytest.approx(0.05, abs=0.035)


def test_the_own_null_test_by_hand() -> None:
    """Differences 0.1 … 0.7 and -0.8: the lower rank sum is 8, as 1 + … + 7 is 28 beside it."""
    own = [0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, -0.3, None, 5.0]
    null = [0.5] * 9 + [None]
    (row,) = of_nulls([ablated_fit("snmf-k010", own, null)]).values()
    # Subsets of ranks 1 to 8 with a sum of at most 8: 25, and as many of at least 28, of 256.
    assert row["p_value"] == row["q_value"] == pytest.approx(50 / 256)
    assert (row["n_pairs"], row["is_significant"]) == (8, False)
    assert (row["mean_a"], row["mean_b"]) == pytest.approx((0.75, 0.5))
    assert row["median_difference"] == pytest.approx(0.35)


def test_own_nulls_are_a_family_apart_and_say_why_there_is_no_test() -> None:
    generator = np.random.default_rng(9)
    fits = [
        planted_fit(f"fit{i}-k012", generator.random(12), metric="ablation_selectivity")
        for i in range(3)
    ]
    alone = paired_test_rows(fits, NOT_SHUFFLED, CONFIG)
    above = fits[0].values("ablation_selectivity").to_numpy()
    beside = [ablated_fit("fit0-k012", above, above - 1), *fits[1:]]
    assert (
        paired_test_rows(beside, NOT_SHUFFLED, CONFIG).filter(OF_FITS).equals(alone.filter(OF_FITS))
    )
    found = of_nulls(beside)
    assert found["fit0-k012"]["q_value"] == found["fit0-k012"]["p_value"] == 2 / 2**12
    assert found["fit1-k012"]["status"] == "not_applicable" and found["fit1-k012"]["n_pairs"] == 0
    assert "ablation.max_features" in found["fit1-k012"]["reason"]
    twice = of_nulls([*beside[:1], ablated_fit("fit1-k012", above, above - 1), fits[2]])
    assert twice["fit1-k012"]["q_value"] == 2 / 2**12


def test_a_null_is_compared_with_its_metric_alone() -> None:
    fits = [ablated_fit(f"fit{i}-k012", np.arange(12.0), np.arange(12.0) - i) for i in range(2)]
    rows = paired_test_rows(fits, NOT_SHUFFLED, CONFIG)
    assert "ablation_selectivity_null" not in rows["metric"].to_list()
    assert "ablation_selectivity_null" not in {
        m.name for m in metrics.significance_metrics(metrics.FEATURE_METRICS)
    }
    assert metrics.METRICS["ablation_selectivity_null"].higher_is_better is None
