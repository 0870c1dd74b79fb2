"""The metrics of each further label, where a study's steered texts are judged on several.

The first of steering.judged_labels has the plain names (steering_gain), from the catalogue. Each
further one has the same metrics under names that say whose they are (steering_gain_by_output), from
the tables that the catalogue takes its own from: the poolings of `steering_summaries`, and of
`judge_free_scores` the sign + at the study's largest target KL. A label is a question of its own,
so its metrics are families of their own in tests, and nothing is pooled over labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from assets.comparison.metrics import FEATURE_METRICS, Metric
from assets.steering.judged_labels import judged_label

# Metric → column, sign and pooling of steering_summaries.
POOLED = {
    "steering_score": ("score", "either", "best_kl"),
    "steering_gain": ("gain", "either", "best_kl"),
    "steering_gain_held_out": ("gain", "either", "best_kl_held_out"),
    "steering_gain_plus": ("gain", "+", "best_kl"),
    "steering_gain_minus": ("gain", "-", "best_kl"),
    "steering_gain_mean": ("gain", "either", "mean_kl"),
    "steering_gain_mean_plus": ("gain", "+", "mean_kl"),
    "steering_gain_mean_minus": ("gain", "-", "mean_kl"),
}
LOGPROB_GAIN = "label_logprob_gain"
_KEY = ["fit", "feature_id"]
_BY = "_by_"


def suffixes(judged_labels: Sequence[str]) -> list[str]:
    """What the names of each label's metrics end in: those of the first in nothing."""
    return ["" if place == 0 else suffix_of(one) for place, one in enumerate(judged_labels)]


def suffix_of(judged: str) -> str:
    """What the names of a further label's metrics end in."""
    return f"{_BY}{judged}"


def split_name(metric: str) -> tuple[str, str]:
    """Plain name and label of a further label's metric."""
    plain, _, judged = metric.rpartition(_BY)
    return plain, judged


def feature_metrics(judged_labels: Sequence[str]) -> tuple[Metric, ...]:
    """The metrics of features of a study: those of every study, then each further label's."""
    further = [
        replace(
            metric,
            name=metric.name + suffix_of(judged),
            meaning=f"{metric.meaning}; of the {judged} label",
            told_by=f"{metric.told_by}, of the {judged} label",
        )
        for judged in judged_labels[1:]
        for metric in FEATURE_METRICS
        if metric.name in (*POOLED, LOGPROB_GAIN)
    ]
    return (*FEATURE_METRICS, *further)


def with_further_labels(
    features: pl.DataFrame,
    summaries: pl.DataFrame,
    judge_free: pl.DataFrame,
    judged_labels: Sequence[str],
) -> pl.DataFrame:
    """`features` with a column for each metric of the further labels, NULL where there is none.

    `features` has fit and feature_id; `summaries` these with label_kind, sign, pooling, score and
    gain; `judge_free` with label_kind, sign, target_kl_nats and label_logprob_gain.
    """
    for judged in judged_labels[1:]:
        of_label = judged_values(summaries, judge_free, judged)
        names = {name: name + suffix_of(judged) for name in of_label.columns if name not in _KEY}
        features = features.join(of_label.rename(names), on=_KEY, how="left", maintain_order="left")
    return features


def judged_values(summaries: pl.DataFrame, judge_free: pl.DataFrame, judged: str) -> pl.DataFrame:
    """fit, feature_id and one judged label's metrics by their plain names."""
    pooled = summaries.filter(label_kind=judged)
    values = pooled.group_by(_KEY).agg(
        pl.col(column).filter(sign=sign, pooling=pooling).first().alias(metric)
        for metric, (column, sign, pooling) in POOLED.items()
    )
    steered = judge_free.filter(sign="+")
    at_largest = pl.col("target_kl_nats") == pl.col("target_kl_nats").max().over("fit")
    gains = steered.filter(at_largest).filter(judged_label(pl.col("label_kind")) == judged)
    return values.join(gains.select(*_KEY, LOGPROB_GAIN), on=_KEY, how="full", coalesce=True).sort(
        _KEY
    )
