"""What fits are compared by: which figures, where they stand, and what is better.

Three kinds: of each feature (means, paired tests and significance over features), of a fit as a
whole, and costs. A score that is the best of several settings (steering_score, steering_gain) is
flattered by the choice, the more the noisier it is; it is so for every fit and control alike, hence
only differences from the controls mean something. A gain takes off what the judge gives to
unsteered texts; steering_gain_held_out chooses the setting on other texts than it is measured on,
and steering_gain_mean chooses none, so they have no winner's curse. What chance gives there the
controls say: a random direction costs fluency, so below 0 is to be expected. The judge-free scores
choose nothing and ask nobody; those at a target KL are of the study's largest, so that features
are compared at one KL, and a feature that did not reach it has none.

s_cd is undefined where a mean cosine is not above 0: that says where zero lies, not how well the
feature tells the sentences apart, and features of null controls hardly ever have it. So
generated_auroc, of the same sentences and always defined, stands beside it.

What is judged or scored by a label is so by the first of steering.judged_labels; the same by
further ones is further_labels.py.

Random and permuted fits write less at their strong tokens than features do, so ablation is compared
with a null of the same norm too: each feature's own with its neurons permuted (`own_null`). Such a
null's mean is shown beside, and compared with nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One figure; `told_by` names the table that says why a feature or fit has none."""

    name: str
    unit: str
    higher_is_better: bool | None
    meaning: str
    told_by: str
    own_null: str | None = None
    """The metric that holds the same figure of each feature's own null."""


FEATURE_METRICS = (
    Metric(
        "concept_auroc",
        "",
        True,
        "AUROC of the feature's corpus concept, on documents not used to choose it",
        "concept_detection (source corpus)",
    ),
    Metric(
        "s_cd",
        "nats",
        True,
        "concept detection on generated sentences, log ratio of means",
        "concept_detection (source generated)",
    ),
    Metric(
        "generated_auroc",
        "",
        True,
        "AUROC of the generated activating against the neutral sentences of s_cd",
        "concept_detection (source generated)",
    ),
    Metric("label_auroc", "", True, "detection score of the label", "label_scores"),
    Metric(
        "steering_score",
        "0..2",
        True,
        "best over signs and target KLs of the judge's mean score",
        "steering_scores",
    ),
    Metric(
        "steering_gain",
        "-2..2",
        True,
        "steering_score minus the score of unsteered texts",
        "steering_scores",
    ),
    Metric(
        "steering_gain_held_out",
        "-2..2",
        True,
        "the gain with the setting chosen on one half of the texts, measured on the other",
        "steering_summaries (pooling best_kl_held_out, sign either)",
    ),
    Metric(
        "steering_gain_plus",
        "-2..2",
        True,
        "steering_gain of the sign + alone: the best of its target KLs",
        "steering_summaries (pooling best_kl, sign +)",
    ),
    Metric(
        "steering_gain_minus",
        "-2..2",
        True,
        "steering_gain of the sign - alone: the best of its target KLs",
        "steering_summaries (pooling best_kl, sign -)",
    ),
    Metric(
        "steering_gain_mean",
        "-2..2",
        True,
        "mean gain over the target KLs that were reached and all texts, of both signs",
        "steering_summaries (pooling mean_kl, sign either)",
    ),
    Metric(
        "steering_gain_mean_plus",
        "-2..2",
        True,
        "mean gain over the target KLs that were reached and all texts, of the sign +",
        "steering_summaries (pooling mean_kl, sign +)",
    ),
    Metric(
        "steering_gain_mean_minus",
        "-2..2",
        True,
        "mean gain over the target KLs that were reached and all texts, of the sign -",
        "steering_summaries (pooling mean_kl, sign -)",
    ),
    Metric(
        "ablation_selectivity",
        "nats",
        True,
        "cross-entropy that zeroing the feature adds where it is strong, minus at all other tokens",
        "ablation_effects (ablation zero, which ablation.ablations must name; is_null false)",
        own_null="ablation_selectivity_null",
    ),
    Metric(
        "ablation_selectivity_null",
        "nats",
        None,
        "the same with the feature's neurons permuted, at its own tokens and by its own norm",
        "ablation_effects (ablation zero, which ablation.ablations must name; is_null true)",
    ),
    Metric(
        "ablation_concept_selectivity",
        "nats",
        True,
        "cross-entropy that zeroing the feature adds in documents of its concept, minus of others",
        "ablation_effects (ablation zero, which ablation.ablations must name; is_null false)",
        own_null="ablation_concept_selectivity_null",
    ),
    Metric(
        "ablation_concept_selectivity_null",
        "nats",
        None,
        "the same with the feature's neurons permuted, in the same documents",
        "ablation_effects (ablation zero, which ablation.ablations must name; is_null true)",
    ),
    Metric(
        "input_score",
        "share",
        True,
        "judge-free: share of the top contexts whose peak token the feature also promotes",
        "judge_free_scores (sign +)",
    ),
    Metric(
        "output_score",
        "",
        True,
        "judge-free: rank-weighted probability of the promoted tokens at the largest target KL",
        "judge_free_scores (sign +, the largest target_kl_nats)",
    ),
    Metric(
        "label_logprob_gain",
        "nats/token",
        True,
        "judge-free: log-probability that the largest target KL adds to the label's tokens",
        "judge_free_scores (sign +, the largest target_kl_nats)",
    ),
)
FEATURE_METRIC_NAMES = tuple(metric.name for metric in FEATURE_METRICS)


def compared_metrics(metrics: Sequence[Metric]) -> tuple[Metric, ...]:
    """Those that fits are tested by against each other: all but figures of features' nulls."""
    own_nulls = {metric.own_null for metric in metrics}
    return tuple(metric for metric in metrics if metric.name not in own_nulls)


def significance_metrics(metrics: Sequence[Metric]) -> tuple[Metric, ...]:
    """Those tested against the controls feature by feature; steering_score has its gain."""
    return tuple(m for m in compared_metrics(metrics) if not m.name.startswith("steering_score"))


FIT_METRICS = (
    Metric(
        "faithfulness",
        "",
        True,
        "cross-entropy recovered when the model runs on the reconstruction",
        "faithfulness (replacement reconstruction)",
    ),
    Metric("explained_variance", "", True, "1 - |A - YZ|² / |A|²", "factorizations"),
    Metric("l0", "features", None, "coefficients above zero per token", "factorizations"),
)

COST_METRICS = (
    Metric(
        "fit_seconds",
        "seconds",
        False,
        "wall time of the factorization alone, from a cold start",
        "factorizations",
    ),
    Metric(
        "seconds",
        "seconds",
        False,
        "wall time of the runs that made the rows of the fit's assets that stand now",
        "run_ledger",
    ),
    Metric(
        "usd",
        "USD",
        False,
        "price of the distinct LLM calls behind the fit's rows that stand now",
        "llm_calls",
    ),
)
METRICS = {m.name: m for m in (*FEATURE_METRICS, *FIT_METRICS, *COST_METRICS)}


def value_of_no_effect(name: str) -> float | None:
    """What a feature that tells or does nothing scores; None where that is no fixed number."""
    if name.endswith("_auroc"):
        return 0.5
    return 0.0 if name == "s_cd" or "_gain" in name or "_selectivity" in name else None
