"""`paired_tests`: do the features of one fit score higher than those of another?

For each metric and pair of fits, over pairs of features (pairing.py), d = a - b:

    Wilcoxon's signed-rank test (1945), two-sided, zeros ranked as Pratt (1959) has it; exact for
    few differences. Null: d is spread symmetrically around 0.

A family is one metric at one site, fits against each other apart from fits against controls: the
latter are mostly easy, and would lend the former their small p-values. So are the tests of a fit
with itself: labels against shuffled ones (label_auroc), a third family, and features against their
own permuted nulls, a fourth for each metric that has them. q-values are by Benjamini and Hochberg,
so of the differences called significant in a family at most the study's `fdr` are expected to be
none.
The units are features of these two dictionaries: a low q says that they differ over their features,
not that another seed or corpus would show the same.

n differences that are not zero can give no p below 2 / 2^n (zeros have no sign), so a test of
fewer than `fewest_differences` is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float
from scipy.stats import rankdata, wilcoxon

from assets.comparison.config import ComparisonConfig
from assets.comparison.fits import ComparedFit, pairs_of_fits
from assets.comparison.intervals import interval_of_median
from assets.comparison.metrics import FEATURE_METRICS, METRICS, Metric, compared_metrics
from assets.comparison.pairing import Pairs, own_and_null, own_and_shuffled, paired_values
from assets.comparison.tables import PAIRED_TESTS
from assets.shared.false_discovery import with_q_values

SCHEMA = {
    column.name: column.polars_type
    for column in PAIRED_TESTS.columns
    if column.name not in PAIRED_TESTS.partition_by
}

_REMEDIES = {
    "shuffled_label": "label more features, or raise labels.n_shuffled (at most half of them are "
    "shuffled)",
    "permuted_null": "ablate more features (ablation.max_features and max_features_controls)",
}
_REMEDY_OF_FITS = "measure more features of both fits (max_features and max_features_controls)"

# Up to so many differences all choices of their signs are gone through: ties and zeros are exact.
MOST_FOR_ALL_SIGNS = 12


def paired_test_rows(
    fits: Sequence[ComparedFit],
    shuffled: pl.DataFrame,
    config: ComparisonConfig,
    metrics: Sequence[Metric] = FEATURE_METRICS,
) -> pl.DataFrame:
    """Rows of `paired_tests` without the site; `metrics` are those of features.

    `shuffled` has fit, feature_id and auroc of features that were judged by another's label.
    """
    fewest = fewest_differences(config.fdr)
    of_fits = [
        _test_row(a, b, metric, paired_values(a, b, metric.name, fewest), config)
        for metric in compared_metrics(metrics)
        for a, b in pairs_of_fits(fits)
    ]
    of_labels = [
        _test_row(fit, fit, METRICS["label_auroc"], own_and_shuffled(fit, shuffled), config)
        for fit in fits
    ]
    of_nulls = [
        _test_row(fit, fit, metric, own_and_null(fit, metric.name, metric.own_null), config)
        for metric in compared_metrics(metrics)
        if metric.own_null is not None
        for fit in fits
    ]
    frame = pl.concat(
        [
            with_q_values(pl.DataFrame(of_fits, schema=SCHEMA), ["metric", "is_control_b"]),
            with_q_values(pl.DataFrame(of_labels, schema=SCHEMA)),
            with_q_values(pl.DataFrame(of_nulls, schema=SCHEMA), ["metric"]),
        ]
    )
    return frame.with_columns((pl.col("q_value") <= config.fdr).alias("is_significant"))


def fewest_differences(fdr: float) -> int:
    """The smallest number of non-zero differences whose smallest p, 2 / 2^n, is within `fdr`."""
    return math.ceil(1 - math.log2(fdr))


def signed_rank_p(differences: Float[np.ndarray, " n_pairs"]) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test; some difference must not be zero."""
    ranks = rankdata(np.abs(differences))
    is_signed = differences != 0
    signed = ranks[is_signed]
    if len(signed) <= MOST_FOR_ALL_SIGNS:
        signs = np.array(list(product((-1.0, 1.0), repeat=len(signed))))
        found = abs(signed @ np.sign(differences[is_signed]))
        return float(np.mean(np.abs(signs @ signed) >= found - 1e-9))
    result: Any = wilcoxon(differences, zero_method="pratt")
    return float(result.pvalue)


def _test_row(
    a: ComparedFit, b: ComparedFit, metric: Metric, pairs: Pairs, config: ComparisonConfig
) -> dict[str, Any]:
    differences = pairs.a - pairs.b
    row: dict[str, Any] = dict.fromkeys(SCHEMA) | {
        "metric": metric.name,
        "fit_a": a.key,
        "fit_b": b.key,
        "is_control_b": b.is_control,
        "pairing": pairs.pairing,
        "n_pairs": len(differences),
        "unit": metric.unit,
        "higher_is_better": metric.higher_is_better,
        "seed": config.seed,
    }
    if len(differences):
        low, high = interval_of_median(differences, config)
        row |= {
            "mean_a": float(pairs.a.mean()),
            "mean_b": float(pairs.b.mean()),
            "median_difference": float(np.median(differences)),
            "difference_low": low,
            "difference_high": high,
        }
    reason = _why_no_test(a, b, pairs, config.fdr)
    if reason is not None:
        return row | {"status": "not_applicable", "reason": reason}
    return row | {"p_value": signed_rank_p(differences), "status": "ok"}


def _why_no_test(a: ComparedFit, b: ComparedFit, pairs: Pairs, fdr: float) -> str | None:
    fewest = fewest_differences(fdr)
    for fit in (a, b):
        if not fit.is_there:
            return f"{fit.key}: {fit.reason}"
    n, n_differences = len(pairs.a), int((pairs.a != pairs.b).sum())
    if n >= fewest and not n_differences:
        return "every difference is 0"
    if n_differences < fewest:
        remedy = _REMEDIES.get(pairs.pairing, _REMEDY_OF_FITS)
        return (
            f"{n} pairs of features with a value, {n_differences} with a difference; p can be at "
            f"most {fdr} with {fewest} or more differences: {remedy}"
        )
    return None
