"""The lake tables of the comparison: the fits of a site side by side, in pairs, and against chance.

All three are made anew together, whenever something of any fit of the site changed: q-values are a
property of all tests at once.
"""

from __future__ import annotations

from assets.shared.schema import FEATURE_ID, FIT, SITE, Column, Table, status_columns

_METRIC = Column(
    "metric",
    "VARCHAR",
    "Of features: concept_auroc, s_cd, generated_auroc, label_auroc, steering_score and "
    "steering_gain (best of all settings), steering_gain_held_out (the setting chosen on other "
    "texts), steering_gain_plus and _minus (best target KL of that sign), steering_gain_mean (over "
    "all settings) and steering_gain_mean_plus and _minus (over those of that sign), "
    "ablation_selectivity and ablation_concept_selectivity, and the same with _null at the end (of "
    "the features' own permuted nulls), "
    "input_score, output_score, label_logprob_gain; steering_… and label_logprob_gain are of the "
    "first of steering.judged_labels, and the same names with _by_input or _by_output at the end "
    "of a further one. Of the fit: faithfulness, explained_variance, l0. Costs: "
    "fit_seconds, seconds, usd",
)
_UNIT = Column("unit", "VARCHAR", "Unit of the metric; empty where it has none")
_HIGHER_IS_BETTER = Column(
    "higher_is_better", "BOOLEAN", "NULL where neither is better", nullable=True
)
_SEED = Column("seed", "BIGINT", "Seed of the resamples", minimum=0)


def _value(name: str, description: str, *, is_volatile: bool = False) -> Column:
    return Column(name, "DOUBLE", description, "of the metric", True, is_volatile=is_volatile)


def _probability(name: str, description: str) -> Column:
    return Column(name, "DOUBLE", description, nullable=True, minimum=0.0, maximum=1.0)


METHOD_COMPARISON = Table(
    name="method_comparison",
    stage="comparison",
    description=(
        "Every fit of a site by every metric: mean over its features with an interval, or the "
        "fit's own figure, and how many of the features attempted have a value; how many could not "
        "be, for want of a label, stands beside. Controls are rows like any other"
    ),
    columns=(
        SITE,
        FIT,
        _METRIC,
        Column("method", "VARCHAR", "Method of the fit"),
        Column("is_control", "BOOLEAN", "The method is a null control"),
        _value("value", "Mean over features that have one, or the fit's figure; NULL for costs"),
        _value(
            "value_low",
            "Lower end of its t interval; NULL of one feature or document, of values all alike, of "
            "faithfulness where what zeroing costs could be 0, and of explained_variance and l0",
        ),
        _value("value_high", "Upper end of the same"),
        Column(
            "interval_over",
            "VARCHAR",
            "Whose spread it tells of: features or documents; NULL without an interval",
            nullable=True,
        ),
        _value(
            "cost",
            "The figure of the metrics fit_seconds, seconds and usd, of the rows that stand now; "
            "what was made and replaced since is in run_ledger. fit_seconds: wall time of the "
            "factorization alone; NULL where it went on from an earlier fit. seconds: wall time of "
            "each asset of the fit, from the last run that took nothing over (no rows, no answers "
            "of the cache) to the one that wrote the rows, runs that failed between them included; "
            "rows made again and come out equal count twice; NULL where rows were taken over from "
            "runs that the ledger lacks. usd: price, by the study's prices, of each distinct call "
            "in the fit's rows of llm_calls, whichever run or fit paid for it; NULL where a price "
            "is not known",
            is_volatile=True,
        ),
        Column(
            "n", "INTEGER", "Features with a value; NULL for figures of the fit", "features", True
        ),
        Column(
            "n_attempted",
            "INTEGER",
            "Features that the metric's stage takes up within its cap: not those beyond it "
            "(max_features, also of labels), and not those of n_without_label; but those whose "
            "label failed, so that they have no value. NULL for figures of the fit, and in rows "
            "from before 0.5.0; in those from before 0.7.0 without the features whose label failed "
            "(label_auroc: with those of n_without_label)",
            "features",
            nullable=True,
            minimum=0,
        ),
        Column(
            "n_without_label",
            "INTEGER",
            "Features within the cap that have no value, and are not in n_attempted, since their "
            "label is none: the LLM saw no theme, or had no evidence. 0 for metrics that need no "
            "label. It takes no place under the cap of detection, and one under that of steering. "
            "Where it differs between fits, means are of features chosen differently. NULL for "
            "figures of the fit, and in rows from before 0.7.0",
            "features",
            nullable=True,
            minimum=0,
        ),
        Column("n_features", "INTEGER", "All features of the fit", "features", nullable=True),
        _probability(
            "coverage",
            "n / n_attempted: the share of attempted features that the mean is over; of the others "
            "the metric or the label failed, or the metric is undefined. Says nothing of "
            "n_without_label. NULL where none was attempted; n / n_features in rows from before "
            "0.5.0",
        ),
        _UNIT,
        _HIGHER_IS_BETTER,
        Column("seed", "BIGINT", "comparison.seed; nothing of this table is drawn", minimum=0),
        *status_columns("ok; no_value; failed (the fit failed, or was not made)"),
    ),
    key=("site", "fit", "metric"),
    partition_by=("site",),
)

PAIRED_TESTS = Table(
    name="paired_tests",
    stage="comparison",
    description=(
        "Whether one fit's features score higher than another's: Wilcoxon signed-rank tests over "
        "pairs of features, every fit that is no control against every other and against each "
        "control. q_value is by Benjamini and Hochberg over the pairs of fits of the metric, those "
        "with a control in fit_b apart from those without. Beside them, with fit_b = fit_a, each a "
        "family of its own: every fit's labels against shuffled ones (pairing shuffled_label), and "
        "the ablation of its features against that of their own permuted nulls, of the same norm "
        "at the same tokens (pairing permuted_null)"
    ),
    columns=(
        SITE,
        _METRIC,
        Column("fit_a", "VARCHAR", "A fit that is no control; with itself any fit"),
        Column(
            "fit_b",
            "VARCHAR",
            "The fit it is compared with; of shuffled_label and permuted_null itself",
        ),
        Column("is_control_b", "BOOLEAN", "fit_b is a null control"),
        Column(
            "pairing",
            "VARCHAR",
            "concept: for each corpus concept that both have a feature for, the strongest one of "
            "each; strength_rank: the k-th strongest with the k-th strongest, where too few "
            "concepts are shared; shuffled_label: label_auroc of each feature's own label with "
            "that of another feature's label, judged on the same contexts; permuted_null: "
            "ablation_selectivity or ablation_concept_selectivity of each feature with that of its "
            "null",
        ),
        Column("n_pairs", "INTEGER", "Pairs in which both have a value", "pairs", minimum=0),
        _value("mean_a", "Mean over the pairs' features of fit_a"),
        _value("mean_b", "The same of fit_b, or of the shuffled labels or nulls"),
        _value("median_difference", "Median over pairs of a - b"),
        _value(
            "difference_low",
            "Lower end of its interval, percentile bootstrap over pairs; NULL of fewer pairs than "
            "it takes to cover (6 for 95 %), and where no spread was seen",
        ),
        _value("difference_high", "Upper end of the same"),
        _probability("p_value", "Two-sided: are the differences spread symmetrically around 0"),
        _probability(
            "q_value",
            "p_value by Benjamini and Hochberg over the site's tests of the same metric and "
            "is_control_b; of shuffled_label and of permuted_null over the site's fits",
        ),
        Column("is_significant", "BOOLEAN", "q_value is at most comparison.fdr", nullable=True),
        _UNIT,
        _HIGHER_IS_BETTER,
        _SEED,
        *status_columns("ok; not_applicable (too few pairs that differ, or none)"),
    ),
    key=("site", "metric", "fit_a", "fit_b"),
    partition_by=("site",),
)

FEATURE_SIGNIFICANCE = Table(
    name="feature_significance",
    stage="comparison",
    description=(
        "Each feature of a fit that is no control against the features of the null controls of "
        "its site, which went the same way: does it score higher than features without meaning? A "
        "row for each kind of control, whose p_value speaks of that kind alone (directions that "
        "merely lie where activations vary score above random and permuted ones), and one for "
        "every kind at once, the one to call: read control = 'every'. Of the features of one fit, "
        "metric and control that are significant at most comparison.fdr are expected to be false: "
        "to be exchangeable with the control, or with one of every. With m features that have a "
        "value, one that alone lies above every control is significant with m / comparison.fdr - 1 "
        "controls or more; with fewer, reason says how many features must be together"
    ),
    columns=(
        SITE,
        FIT,
        FEATURE_ID,
        Column(
            "metric",
            "VARCHAR",
            "One of the metrics of features, but steering_score and those of permuted nulls",
        ),
        Column(
            "control",
            "VARCHAR",
            "What it is compared with: the method of the site's controls (covariance, random, "
            "permuted), or every: all kinds that the study has, by the largest of their p_values. "
            "NULL in rows from before 0.7.0, of all controls pooled",
            nullable=True,
        ),
        _value("value", "The feature's score"),
        _probability(
            "p_value",
            "(1 + controls that score at least as high) / (1 + n_controls), one-sided; of every: "
            "the largest over the kinds, NULL where a kind that the study has knows no value",
        ),
        _probability(
            "q_value",
            "p_value by Benjamini and Hochberg over the fit's features with a value, for each "
            "metric and control by itself",
        ),
        Column(
            "is_significant",
            "BOOLEAN",
            "q_value is at most comparison.fdr; NULL where that could not be, whatever the value",
            nullable=True,
        ),
        Column(
            "n_controls",
            "INTEGER",
            "Features of the control that have a value; of every: of the kind that has fewest",
            "features",
        ),
        _value("control_mean", "Mean of the controls; this and the next three NULL for every"),
        _value("control_median", "Median of the controls"),
        _value("control_q95", "Their 95 % quantile"),
        _value("control_max", "The highest of them"),
        *status_columns("ok; too_few_controls; no_controls; no_value"),
    ),
    key=("site", "fit", "feature_id", "metric", "control"),
    partition_by=("site",),
)

TABLES = (METHOD_COMPARISON, PAIRED_TESTS, FEATURE_SIGNIFICANCE)
