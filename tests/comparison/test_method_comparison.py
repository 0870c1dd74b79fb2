"""Fits side by side: means with coverage, what is missing said, costs apart from content."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from assets.comparison import overview
from assets.comparison.config import ComparisonConfig
from assets.comparison.feature_significance import significance_rows
from assets.comparison.fits import ComparedFit, compared_fits
from assets.comparison.intervals import interval_of_mean, interval_of_median
from assets.comparison.method_means import method_rows
from assets.comparison.metrics import METRICS
from assets.comparison.paired_tests import paired_test_rows
from assets.comparison.tables import METHOD_COMPARISON
from assets.shared.content_hash import column_versions
from tests.comparison.planted_fits import NO_ATTEMPTS, NOT_SHUFFLED, PARTITION, features_of

CONFIG = ComparisonConfig(n_bootstrap=300)
OWN_NULL = "ablation_selectivity_null"
METHODS = {
    "snmf-k004": ("snmf", False),
    "sae-k004": ("sae", False),
    "pca-k004": ("pca", False),
    "random-k004": ("random", True),
}
FACTORIZATIONS = pl.DataFrame(
    {
        "fit": ["snmf-k004", "sae-k004", "random-k004"],
        "status": ["ok", "failed", "ok"],
        "reason": [None, "too few tokens", None],
        "explained_variance": [0.4, None, -0.1],
        "l0": [3.0, None, 2.0],
    }
)
FAITHFULNESS = pl.DataFrame(
    {
        "fit": ["snmf-k004", "random-k004"],
        "recovered": [0.7, None],
        "recovered_low": [0.6, None],
        "recovered_high": [0.8, None],
        "reason": [None, "zeroing does not raise the cross-entropy"],
    }
)
COSTS = pl.DataFrame(
    {
        "fit": ["snmf-k004", "random-k004"],
        "seconds": [9.0, 3.0],
        "usd": [None, 0.0],
        "usd_reason": ["the price of 3 calls is not known", None],
    }
)
# Of snmf's four features label_auroc was attempted of two, s_cd of three, and two have no theme.
ATTEMPTS = pl.DataFrame(
    [
        ("snmf-k004", "concept_auroc", 4, 0),
        ("snmf-k004", "s_cd", 3, 0),
        ("snmf-k004", "label_auroc", 2, 2),
        ("snmf-k004", "generated_auroc", 0, 4),
        ("random-k004", "concept_auroc", 4, 0),
    ],
    schema=NO_ATTEMPTS.schema,
    orient="row",
)


def site() -> list[ComparedFit]:
    features = pl.concat(
        [
            features_of("snmf-k004", [0.9, 0.8, None, 0.4]).with_columns(
                pl.Series("label_auroc", [0.7, 0.5, None, None])
            ),
            # Left in the lake by a fit that has failed since, and by one that is gone.
            features_of("sae-k004", [0.9]),
            features_of("gone-k004", [0.9]),
            features_of("random-k004", [0.5, 0.6, 0.4, 0.5]),
        ]
    )
    return compared_fits(METHODS, features, FACTORIZATIONS)


def rows_of_site(costs: pl.DataFrame = COSTS) -> pl.DataFrame:
    return method_rows(site(), FACTORIZATIONS, FAITHFULNESS, costs, ATTEMPTS, CONFIG)


def row(fit: str, metric: str) -> dict:
    return rows_of_site().filter(fit=fit, metric=metric).row(0, named=True)


def test_every_fit_has_a_row_for_every_metric() -> None:
    rows = METHOD_COMPARISON.conform(rows_of_site(), PARTITION)
    assert len(rows) == len(METHODS) * len(METRICS)
    has_none = rows["value"].is_null() & rows["cost"].is_null()
    assert (has_none == (rows["status"] != "ok")).all()
    assert rows.filter(has_none)["reason"].null_count() == 0


def test_a_mean_is_over_the_features_that_have_a_value_and_says_how_many() -> None:
    found = row("snmf-k004", "concept_auroc")
    assert found["value"] == pytest.approx(0.7)
    assert (found["n"], found["n_features"], found["coverage"]) == (3, 4, 0.75)
    assert found["value_low"] < 0.7 < found["value_high"]
    assert (found["interval_over"], found["seed"]) == ("features", 0)
    missing = row("snmf-k004", "s_cd")
    assert (missing["value"], missing["n"], missing["coverage"]) == (None, 0, 0.0)
    assert missing["status"] == "no_value" and "concept_detection" in missing["reason"]
    assert "none of the 3 features attempted has one" in missing["reason"]


def test_coverage_is_of_the_features_attempted_and_tells_caps_from_failures() -> None:
    capped, failed = row("snmf-k004", "label_auroc"), row("snmf-k004", "concept_auroc")
    never = row("snmf-k004", "output_score")
    assert (capped["n"], capped["n_attempted"], capped["coverage"]) == (2, 2, 1.0)
    # Its other two are no cap's doing, and are said beside.
    assert (capped["n_without_label"], failed["n_without_label"]) == (2, 0)
    nameless = row("snmf-k004", "generated_auroc")
    assert (nameless["n_attempted"], nameless["n_without_label"]) == (0, 4)
    assert "of no feature (4 more: no theme was found to name them)" in nameless["reason"]
    assert (failed["n"], failed["n_attempted"], failed["coverage"]) == (3, 4, 0.75)
    assert (never["n"], never["n_attempted"], never["coverage"]) == (0, 0, None)
    assert never["n_features"] == 4 and "attempted of no feature" in never["reason"]
    figure = row("snmf-k004", "l0")
    assert (figure["n_attempted"], figure["n_without_label"]) == (None, None)
    assert figure["coverage"] is None
    # A stage that was run again since may have taken up fewer than the catalogue has values of.
    older = method_rows(site(), FACTORIZATIONS, FAITHFULNESS, COSTS, NO_ATTEMPTS, CONFIG)
    METHOD_COMPARISON.conform(older, PARTITION)
    stale = older.filter(fit="snmf-k004", metric="concept_auroc").row(0, named=True)
    assert (stale["n_attempted"], stale["coverage"]) == (3, 1.0)


def test_a_metric_s_own_null_has_its_mean_beside_it() -> None:
    features = features_of("snmf-k004", [0.4, 0.2, None], metric="ablation_selectivity")
    features = features.with_columns(pl.Series("ablation_selectivity_null", [0.1, 0.3, None]))
    outcome = pl.DataFrame({"fit": ["snmf-k004"], "status": ["ok"], "reason": [None]})
    fits = compared_fits({"snmf-k004": ("snmf", False)}, features, outcome)
    attempts = pl.DataFrame(
        [("snmf-k004", name, 3, 0) for name in ("ablation_selectivity", OWN_NULL)],
        schema=NO_ATTEMPTS.schema,
        orient="row",
    )
    none = pl.DataFrame()
    rows = method_rows(fits, none, none, none, attempts, CONFIG)
    METHOD_COMPARISON.conform(rows, PARTITION)
    own, null = (
        rows.filter(metric=name).row(0, named=True) for name in ("ablation_selectivity", OWN_NULL)
    )
    assert (own["value"], null["value"]) == pytest.approx((0.3, 0.2))
    assert (null["n"], null["n_attempted"], null["higher_is_better"]) == (2, 3, None)
    columns = overview.method_table(rows).splitlines()[0].split(" | ")
    assert columns.index(OWN_NULL) == columns.index("ablation_selectivity") + 1


def test_a_fit_that_failed_or_was_not_made_keeps_its_rows_with_the_reason() -> None:
    failed, never = row("sae-k004", "concept_auroc"), row("pca-k004", "explained_variance")
    assert (failed["status"], failed["reason"]) == ("failed", "the fit failed: too few tokens")
    assert never["status"] == "failed" and "was not made" in never["reason"]
    assert (failed["value"], failed["n_features"], failed["coverage"]) == (None, None, None)


def test_figures_of_a_fit_come_with_their_own_interval_or_reason() -> None:
    found = row("snmf-k004", "faithfulness")
    assert (found["value"], found["value_low"], found["value_high"]) == (0.7, 0.6, 0.8)
    assert (found["interval_over"], found["n"]) == ("documents", None)
    assert row("random-k004", "faithfulness")["reason"].startswith("zeroing does not")
    assert row("random-k004", "explained_variance")["value"] == -0.1
    assert found["reason"] is None and row("random-k004", "explained_variance")["reason"] is None
    assert row("snmf-k004", "l0")["higher_is_better"] is None


def test_a_figure_without_an_interval_keeps_the_reason_of_its_stage() -> None:
    why = "no interval: that of what zeroing costs holds 0; raise faithfulness.n_documents"
    unsure = FAITHFULNESS.with_columns(
        pl.lit(None, pl.Float64).alias("recovered_low"),
        pl.lit(None, pl.Float64).alias("recovered_high"),
        pl.lit(why).alias("reason"),
    )
    rows = method_rows(site(), FACTORIZATIONS, unsure, COSTS, ATTEMPTS, CONFIG)
    found = rows.filter(fit="snmf-k004", metric="faithfulness").row(0, named=True)
    assert (found["value"], found["value_low"], found["interval_over"]) == (0.7, None, None)
    assert (found["status"], found["reason"]) == ("ok", why)


def test_costs_are_shown_and_are_no_part_of_the_content() -> None:
    assert row("snmf-k004", "seconds")["cost"] == 9.0
    unknown = row("snmf-k004", "usd")
    assert (unknown["cost"], unknown["status"]) == (None, "no_value")
    assert unknown["reason"] == "the price of 3 calls is not known"
    assert "factorizations says why" in row("snmf-k004", "fit_seconds")["reason"]
    slower = COSTS.with_columns(pl.col("seconds") * 2)
    tables = [METHOD_COMPARISON.conform(rows_of_site(c), PARTITION) for c in (COSTS, slower)]
    first, second = (column_versions(table, METHOD_COMPARISON) for table in tables)
    assert first == second and "cost" not in first
    assert not tables[0].equals(tables[1])


@pytest.mark.parametrize("n_features", [2, 8, 40])
def test_intervals_cover_the_true_mean_as_often_as_they_say(n_features: int) -> None:
    generator = np.random.default_rng(0)
    ends = [interval_of_mean(generator.normal(0.3, 1, n_features), CONFIG) for _ in range(800)]
    covered = [low is not None and high is not None and low <= 0.3 <= high for low, high in ends]
    assert 0.93 <= np.mean(covered) <= 0.98


@pytest.mark.parametrize("n_pairs", [6, 8, 40])
def test_the_medians_interval_covers_it_as_often_as_it_says_and_repeats(n_pairs: int) -> None:
    generator, covered = np.random.default_rng(0), []
    for _ in range(400):
        values = generator.exponential(1, n_pairs)
        low, high = interval_of_median(values, CONFIG)
        assert low is not None and high is not None
        covered.append(low <= np.log(2) <= high)
    assert np.mean(covered) >= 0.91
    assert interval_of_median(np.arange(7.0), CONFIG) == interval_of_median(np.arange(7.0), CONFIG)


def test_features_all_alike_or_too_few_pairs_have_no_interval() -> None:
    assert interval_of_mean(np.full(5, 0.9), CONFIG) == (None, None)
    assert interval_of_mean(np.array([0.9]), CONFIG) == (None, None)
    assert interval_of_median(np.arange(5.0), CONFIG) == (None, None)
    assert interval_of_median(np.full(9, 0.1), CONFIG) == (None, None)
    fits = compared_fits(
        {"snmf-k003": ("snmf", False)},
        features_of("snmf-k003", np.full(3, 1.0)),
        pl.DataFrame({"fit": ["snmf-k003"], "status": ["ok"], "reason": [None]}),
    )
    none = pl.DataFrame()
    rows = method_rows(fits, none, none, none, NO_ATTEMPTS, CONFIG)
    alike = rows.filter(metric="concept_auroc").row(0, named=True)
    assert (alike["value"], alike["value_low"], alike["interval_over"]) == (1.0, None, None)
    assert alike["reason"] == "no interval: no spread between 3 features"


def test_what_people_see_first_names_controls_coverage_and_tests() -> None:
    rows = rows_of_site()
    table = overview.method_table(rows)
    assert "random-k004 (control)" in table and "n 3 of 4" in table and table.count("\n") == 5
    assert "n 2 of 2" in table and "–, n 0 of 3" in table and "of 0" not in table
    assert "n 2 of 2, 2 without label" in table and "–, 4 without label" in table
    assert "n 3 of 4 |" in table
    plot = overview.method_plot(rows)
    assert plot is not None and plot.startswith("![Fits by metric](data:image/png;base64,")
    assert plot.endswith(overview.LEGEND)
    assert overview.method_plot(rows.filter(status="no_value")) is None
    significance = overview.significance_table(significance_rows(site(), CONFIG))
    assert "| snmf-k004 | concept_auroc | – | 3 | 4 |" in significance
    assert overview.tests_table(paired_test_rows(site(), NOT_SHUFFLED, CONFIG)).count("\n") == 1


def test_panels_stand_in_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of_site()
    n_panels = rows.filter(pl.col("value").is_not_null())["metric"].n_unique()
    assert n_panels == 5  # and one of seconds
    monkeypatch.setattr(overview, "PANELS_IN_A_ROW", 2)
    plot = overview.method_plot(rows)
    assert plot is not None and plot.count("![Fits by metric](") == 3


def test_a_site_without_fits_gives_empty_tables() -> None:
    empty = method_rows([], FACTORIZATIONS, FAITHFULNESS, COSTS, ATTEMPTS, CONFIG)
    assert len(METHOD_COMPARISON.conform(empty, PARTITION)) == 0
    assert (
        len(paired_test_rows([], NOT_SHUFFLED, CONFIG)) == len(significance_rows([], CONFIG)) == 0
    )
    assert overview.method_plot(empty) is None
