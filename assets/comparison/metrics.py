"""What fits are compared by: which figures, where they stand, and what is better.

Three kinds: of each feature (means, paired tests and significance over features), of a fit as a
whole, and costs. A score that is the best of several settings (steering_score, steering_gain) is
flattered by the choice, the more the noisier it is; it is so for every fit and control alike, hence
only differences from the controls mean something. A gain takes off what the judge gives to
unsteered texts; steering_gain_held_out chooses the setting on other texts than it is measured on,
so it has no winner's curse. What chance gives there the controls say: a random direction costs
fluency, so below 0 is to be expected. The judge-free scores choose nothing and ask nobody.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One figure; `told_by` names the table that says why a feature or fit has none."""

    name: str
    unit: str
    higher_is_better: bool | None
    meaning: str
    told_by: str


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
        "ablation_selectivity",
        "nats",
        True,
        "cross-entropy that zeroing the feature adds where it is strong, minus where it is silent",
        "ablation_effects (ablation zero, which ablation.ablations must name; is_null false)",
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
        "judge_free_scores (sign +)",
    ),
    Metric(
        "label_logprob_gain",
        "nats/token",
        True,
        "judge-free: log-probability that the largest target KL adds to the label's tokens",
        "judge_free_scores (sign +)",
    ),
)
FEATURE_METRIC_NAMES = tuple(metric.name for metric in FEATURE_METRICS)
# Tested against the controls feature by feature; steering_score has its gain.
TESTED_METRICS = tuple(name for name in FEATURE_METRIC_NAMES if name != "steering_score")

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
        "seconds",
        "seconds",
        False,
        "wall time of the fit's assets, each when it was last computed",
        "run_ledger",
    ),
    Metric(
        "usd",
        "USD",
        False,
        "price of all LLM calls made for the fit's assets so far, runs that failed among them",
        "run_ledger",
    ),
)
METRICS = {m.name: m for m in (*FEATURE_METRICS, *FIT_METRICS, *COST_METRICS)}
