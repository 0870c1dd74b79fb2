"""`feature_significance`: does a feature score higher than features without meaning?

    p of a kind of control = (1 + features of that kind that score at least as high) / (1 + n)
    p of every             = the largest p over the kinds of control of the site

A kind is a method: the features of all fits of a control at the site. They went through the same
labelling, judging and choice of the best setting. p is valid, whatever the distribution, for the
hypothesis that a feature is exchangeable with the controls of that kind, and says nothing of
another kind. A direction that learned nothing of concepts, but lies where activations vary, is not
exchangeable with directions that treat all neurons alike (random, permuted): it scores higher than
they do, and is called significant against them. So a low p against those alone says that a feature
knows something of the data, not that it means something; covariance asks for more than the data's
spread. Controls of several kinds are not pooled: easy ones would lend their number to hard ones.

The rows of `every` are the ones to call: their hypothesis is that a feature is exchangeable with at
least one kind. p of that kind is valid then, and the largest is no smaller, however the kinds
depend on each other (intersection-union test: Berger 1982, "Multiparameter hypothesis testing and
acceptance sampling"). Kinds that a study has not are not asked; where one that it has knows no
value of the metric, there is no p of every.

All features of a fit share one set of controls; such p-values depend on each other positively,
under which Benjamini and Hochberg's procedure keeps its promise (Bates, Candès, Lei, Romano and
Sesia 2023, "Testing for outliers with conformal p-values"). That is proved for one kind; for the
largest p over kinds it is simulated in the tests. The family is one fit, metric and control.

p can't be below 1 / (1 + n), so with fewer than 1 / fdr - 1 controls nothing can be significant;
for `every`, n is that of the kind that has fewest. With more, q of j features at that floor still
is m p / j in a family of m: at least m / ((1 + n) fdr) features must be significant together, as
few only where all lie above every control; one alone can be with m / fdr - 1 controls. Both are
said in the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from assets.comparison.config import ComparisonConfig
from assets.comparison.fits import ComparedFit
from assets.comparison.metrics import FEATURE_METRICS, Metric, significance_metrics
from assets.comparison.tables import FEATURE_SIGNIFICANCE
from assets.shared.false_discovery import with_q_values

SCHEMA = {
    column.name: column.polars_type
    for column in FEATURE_SIGNIFICANCE.columns
    if column.name not in FEATURE_SIGNIFICANCE.partition_by
}
# The column `control` of the rows against all kinds of control at once.
EVERY = "every"
Controls = dict[str, Float[np.ndarray, " n_controls"]]


def significance_rows(
    fits: Sequence[ComparedFit],
    config: ComparisonConfig,
    metrics: Sequence[Metric] = FEATURE_METRICS,
) -> pl.DataFrame:
    """Rows of `feature_significance` without the site: every feature of what is no control.

    `metrics` are those of features.
    """
    parts = [pl.DataFrame(schema=SCHEMA)]
    for metric in significance_metrics(metrics):
        kinds = _controls(fits, metric)
        # Where there is no control, the row of every says so.
        asked = [{kind: scores} for kind, scores in kinds.items()] + [kinds]
        names = [*kinds, EVERY]
        for fit in fits:
            if not fit.is_control:
                parts += [
                    _of_fit(fit, metric, name, one, config)
                    for name, one in zip(names, asked, strict=True)
                ]
    return pl.concat(parts)


def p_against_every(
    values: Float[np.ndarray, " n"], kinds: Sequence[Float[np.ndarray, " n_controls"]]
) -> Float[np.ndarray, " n"]:
    """The largest over kinds of `p_against_controls`: of at least one kind."""
    return np.max([p_against_controls(values, controls) for controls in kinds], axis=0)


def p_against_controls(
    values: Float[np.ndarray, " n"], controls: Float[np.ndarray, " n_controls"]
) -> Float[np.ndarray, " n"]:
    """One-sided p-value of each value against the sorted controls; 1 where there are none."""
    n_as_high = len(controls) - np.searchsorted(controls, values, side="left")
    return (1 + n_as_high) / (1 + len(controls))


def fewest_controls(fdr: float) -> int:
    """The smallest number of controls with which a p-value can be as low as `fdr`."""
    return math.ceil(round(1 / fdr - 1, 9))


def fewest_together(n_features: int, n_controls: int, fdr: float) -> int:
    """The fewest of a family's features that are significant together: all above every control."""
    return math.ceil(round(n_features / ((1 + n_controls) * fdr), 9))


def _controls(fits: Sequence[ComparedFit], metric: Metric) -> Controls:
    """The sorted values of the controls by kind; empty for a kind without a value."""
    of_kind: dict[str, list[pl.Series]] = {}
    for fit in fits:
        if fit.is_control:
            of_kind.setdefault(fit.method, []).append(fit.values(metric.name))
    return {kind: pl.concat(values).sort().to_numpy() for kind, values in of_kind.items()}


def _of_fit(
    fit: ComparedFit, metric: Metric, control: str, kinds: Controls, config: ComparisonConfig
) -> pl.DataFrame:
    """The rows of one fit and metric against one kind of control, or against every kind."""
    fewest = min(kinds, key=lambda kind: len(kinds[kind]), default=None)
    n_controls = 0 if fewest is None else len(kinds[fewest])
    status, reason = "no_controls", _without_controls(kinds, metric)
    if n_controls:
        n_features = len(fit.values(metric.name))
        status, reason = _told_of_controls(n_controls, fewest, n_features, config.fdr)
    has_value = pl.col("value").is_not_null()
    described = _described(np.array([]) if control == EVERY else kinds[control])
    frame = fit.features.select("feature_id", pl.col(metric.name).alias("value")).with_columns(
        pl.lit(metric.name).alias("metric"),
        pl.lit(control).alias("control"),
        pl.lit(n_controls).alias("n_controls"),
        *(pl.lit(value, pl.Float64).alias(name) for name, value in described.items()),
        pl.when(has_value).then(pl.lit(status)).otherwise(pl.lit("no_value")).alias("status"),
        pl.when(has_value)
        .then(pl.lit(reason))
        .otherwise(pl.lit(f"no {metric.name}: {metric.told_by} says why"))
        .alias("reason"),
    )
    p_values: list[float | None] = [None] * len(frame)
    if n_controls:
        values = frame["value"].fill_null(0.0).to_numpy()
        p = p_against_every(values, list(kinds.values())).tolist()
        known = frame["value"].is_not_null()
        p_values = [one if has else None for one, has in zip(p, known, strict=True)]
    frame = with_q_values(
        frame.with_columns(
            pl.lit(fit.key).alias("fit"), pl.Series("p_value", p_values, dtype=pl.Float64)
        )
    )
    can_be = status == "ok"
    return frame.with_columns(
        (pl.col("q_value") <= config.fdr if can_be else pl.lit(None, pl.Boolean)).alias(
            "is_significant"
        )
    ).select(pl.col(name).cast(of_type) for name, of_type in SCHEMA.items())


def _without_controls(kinds: Controls, metric: Metric) -> str:
    without = sorted(kind for kind, scores in kinds.items() if not len(scores))
    if without:
        return (
            f"no control feature of method {' and '.join(without)} has a {metric.name}: "
            f"{metric.told_by} says why, if max_features_controls lets any be measured"
        )
    return (
        "no fit of the site is a null control; add fits of method covariance, random and permuted "
        "to the study"
    )


def _told_of_controls(
    n_controls: int, kind: str | None, n_features: int, fdr: float
) -> tuple[str, str | None]:
    """Status and reason, where `kind` has `n_controls` features with a value: no kind fewer."""
    counted = f"{n_controls} control features of method {kind}"
    if n_controls < fewest_controls(fdr):
        return "too_few_controls", (
            f"with {counted} p can't be below {1 / (1 + n_controls):.3g}, so no q-value can reach "
            f"{fdr}; {fewest_controls(fdr)} are needed: raise max_features_controls or the "
            "controls' ranks"
        )
    needed = fewest_together(n_features, n_controls, fdr)
    if needed <= 1:
        return "ok", None
    return "ok", (
        f"with {counted} and {n_features} tested, {needed} features or more are significant "
        f"together, or none is ({needed} only if all score above every control); for one alone "
        f"{fewest_controls(fdr / n_features)} controls are needed"
    )


def _described(controls: Float[np.ndarray, " n"]) -> dict[str, Any]:
    if not len(controls):
        return dict.fromkeys(("control_mean", "control_median", "control_q95", "control_max"))
    return {
        "control_mean": float(controls.mean()),
        "control_median": float(np.median(controls)),
        "control_q95": float(np.quantile(controls, 0.95)),
        "control_max": float(controls[-1]),
    }
