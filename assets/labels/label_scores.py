"""What the judge's answers say of a label: how well it tells where its feature fires.

Of detection and fuzzing, the AUROC of the answers on held-out contexts against those on negatives,
and their balanced accuracy (telling_apart.py). Of simulation, the correlation (Pearson) of the
judge's ratings with the true coefficients, over the words of held-out contexts and random negatives
(simulated_activations.py). Both with an interval over contexts.
A context counts as answered where every foil was: else contexts could be told by which foils were.

A score means something beside the shuffled ones of the same fit and method (`is_shuffled`). What is
asked is score_questions.py; reading one answer is judging.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from assets.labels.asked_texts import Sample, samples_of
from assets.labels.config import JudgeStyle, LabelsConfig, LlmConfig
from assets.labels.judging import (
    choice_of_label,
    expected_digit,
    label_logprob,
    likelihood_of_fit,
    probability_of_yes,
)
from assets.labels.score_questions import ScoreTask
from assets.labels.scored_labels import ScoredLabel, scored_labels
from assets.labels.simulated_activations import rating_correlation
from assets.labels.tables import LABEL_SCORES
from assets.labels.telling_apart import Intervals, auroc, balanced_accuracy, score_intervals
from assets.shared.chat import ChatReply

# What other ways of asking than by yes or no, or by digits, add to a method's name.
_SUFFIX = {"yes_no": "", "choice": "_choice", "likelihood": "_likelihood"}

_SCHEMA = {
    column.name: column.polars_type
    for column in LABEL_SCORES.columns
    if column.name not in LABEL_SCORES.partition_by
}

Answered = tuple[ScoreTask, ChatReply]


def label_score_rows(
    tasks: Sequence[ScoreTask],
    replies: Sequence[ChatReply],
    labels: pl.DataFrame,
    config: LabelsConfig,
    *,
    llm: LlmConfig | None = None,
    skipped: Mapping[tuple[ScoredLabel, Sample], int] | None = None,
) -> pl.DataFrame:
    """Rows of `label_scores` without site and fit.

    One for every row of `labels` of `score_kinds`, method and sort of negatives, whatever its
    status, and of every shuffled label. `replies` answer the requests of `tasks`, in order;
    `skipped` are those of asked_texts.skipped_contexts.
    """
    answered: dict[tuple[ScoredLabel, str], list[Answered]] = {}
    priors: dict[tuple[str, str], Answered] = {}
    for task, reply in zip(tasks, replies, strict=True):
        if task.sample == "prior":
            priors[task.method, task.scored.label] = (task, reply)
        else:
            answered.setdefault((task.scored, task.method), []).append((task, reply))
    style = config.judge_style_for(llm)
    in_use = scored_labels(labels, config)
    rows: list[dict[str, Any]] = []
    for method in config.score_methods_for(llm):
        is_rated = method == "simulation"
        method_name = method if is_rated and style == "choice" else method + _SUFFIX[style]
        for one in in_use:
            for negatives in samples_of(method, config):
                of_row = [
                    (task, reply)
                    for task, reply in answered.get((one, method), ())
                    if task.sample in ("positive", negatives)
                ]
                key = _key(one.feature_id, one.kind, method_name, negatives, one)
                if is_rated:
                    row = key | _simulated(of_row, negatives, config, style)
                else:
                    prior = priors.get((method, one.label))
                    row = key | _told_apart(of_row, negatives, config, prior)
                if skipped and method == "fuzzing":
                    row["reason"] = _with_skipped(row["reason"], skipped, one, negatives)
                rows.append(row)
        for feature_id, kind, status in _unlabelled(labels, config):
            for negatives in samples_of(method, config):
                reason = f"no label: its status is {status}"
                key = _key(feature_id, kind, method_name, negatives, None)
                rows.append(key | _without_score([], "not_attempted", reason))
    seeded = [row | {"seed": config.seed} for row in rows]
    return pl.DataFrame(seeded, schema=_SCHEMA).sort("feature_id", maintain_order=True)


def _unlabelled(labels: pl.DataFrame, config: LabelsConfig) -> list[tuple[int, str, str]]:
    found = labels.filter(pl.col("kind").is_in(config.score_kinds), pl.col("status") != "ok")
    return found.select("feature_id", "kind", "status").rows()


def _told_apart(
    answered: Sequence[Answered],
    negatives: Sample,
    config: LabelsConfig,
    prior: Answered | None = None,
) -> dict[str, Any]:
    """Scores of one label from the answers about its contexts, of any number of foils each.

    `prior` is the answer without a context, of likelihoods.
    """
    by_context: dict[tuple[Sample, str], list[float | None]] = {}
    for task, reply in answered:
        fit = _fit(task, reply, prior)
        by_context.setdefault((task.sample, task.document_id), []).append(fit)
    answered = [*answered, prior] if answered and prior else answered
    means = {context: _mean_if_complete(fits) for context, fits in by_context.items()}
    positive, negative = (
        np.array([mean for (s, _), mean in means.items() if s == sample and mean is not None])
        for sample in ("positive", negatives)
    )
    counts = {"n_positive": len(positive), "n_negative": len(negative)}
    counts["n_failed"] = n_failed = sum(mean is None for mean in means.values())
    for sample, what in (("positive", "held-out contexts"), (negatives, f"{negatives} negatives")):
        if not any(s == sample for s, _ in means):
            reason = f"no {what} to judge"
            return _without_score(answered, "not_attempted", reason) | counts
    if not len(positive) or not len(negative):
        found = f"{len(positive)} held-out contexts and {len(negative)} negatives were answered"
        reason = f"{found}, both are needed; {n_failed} got no answer"
        return _without_score(answered, "failed", reason) | counts
    reason = f"{n_failed} of {len(means)} contexts got no answer" if n_failed else None
    return _without_score(answered, "partial" if n_failed else "ok", reason) | {
        **counts,
        **_ends(score_intervals(positive, negative, config.confidence)),
        "balanced_accuracy": balanced_accuracy(positive, negative),
        "auroc": auroc(positive, negative),
    }


def _simulated(
    answered: Sequence[Answered], negatives: Sample, config: LabelsConfig, style: JudgeStyle
) -> dict[str, Any]:
    """Correlation of expected ratings with coefficients over words; contexts are counted."""
    rating = label_logprob if style == "likelihood" else expected_digit
    rated = [(task, rating(reply)) for task, reply in answered]
    usable = [(task, rating) for task, rating in rated if rating is not None]
    documents = {(task.sample, task.document_id) for task, _ in usable}
    asked = {(task.sample, task.document_id) for task, _ in rated}
    counts = {
        "n_positive": sum(sample == "positive" for sample, _ in documents),
        "n_negative": sum(sample == negatives for sample, _ in documents),
        "n_failed": len(asked - documents),
    }
    if not answered:
        return _without_score([], "not_attempted", "no held-out contexts to judge") | counts
    if not len(usable):
        return _without_score(answered, "failed", "no word got a rating") | counts
    found = rating_correlation(
        np.array([task.coefficient for task, _ in usable], dtype=np.float64),
        np.array([rating for _, rating in usable], dtype=np.float64),
        [(task.sample, task.document_id) for task, _ in usable],
        confidence=config.confidence,
    )
    n_failed = len(rated) - len(usable)
    missing = f"{n_failed} of {len(rated)} words got no rating" if n_failed else None
    if found.r is None:
        reason = f"{found.reason}; {missing}" if missing else found.reason
        return _without_score(answered, "undefined", reason) | counts
    low, high = found.interval or (None, None)
    return _without_score(answered, "partial" if n_failed else "ok", missing) | {
        **counts,
        "correlation": found.r,
        "correlation_low": low,
        "correlation_high": high,
    }


def _key(
    feature_id: int, kind: str, method: str, negatives: str, one: ScoredLabel | None
) -> dict[str, Any]:
    return {
        "feature_id": feature_id,
        "kind": kind,
        "method": method,
        "negatives": negatives,
        "is_shuffled": one is not None and one.is_shuffled,
        "judged_label": None if one is None else one.label,
    }


def _without_score(answered: Sequence[Answered], status: str, reason: str | None) -> dict[str, Any]:
    """What every row has; its numbers are NULL until they are filled in."""
    return {
        "n_positive": 0,
        "n_negative": 0,
        "n_failed": 0,
        "balanced_accuracy": None,
        "balanced_accuracy_low": None,
        "balanced_accuracy_high": None,
        "auroc": None,
        "auroc_low": None,
        "auroc_high": None,
        "correlation": None,
        "correlation_low": None,
        "correlation_high": None,
        # Without those of questions that were not asked.
        "request_hashes": [h for h in dict.fromkeys(r.request_hash for _, r in answered) if h],
        "status": status,
        "reason": reason,
    }


def _ends(intervals: Intervals) -> dict[str, float]:
    return {
        f"{name}_{end}": value
        for name, interval in intervals._asdict().items()
        for end, value in zip(("low", "high"), interval, strict=True)
    }


def _fit(task: ScoreTask, reply: ChatReply, prior: Answered | None) -> float | None:
    if task.request.wants_answer_logprob:
        return likelihood_of_fit(reply, prior[1] if prior else None)
    if task.foil is None:
        return probability_of_yes(reply)
    return choice_of_label(reply, task.scored.label)


def _mean_if_complete(fits: Sequence[float | None]) -> float | None:
    answered = [fit for fit in fits if fit is not None]
    return sum(answered) / len(answered) if len(answered) == len(fits) else None


def _with_skipped(
    reason: str | None,
    skipped: Mapping[tuple[ScoredLabel, Sample], int],
    one: ScoredLabel,
    negatives: Sample,
) -> str | None:
    """The reason, and how many contexts had no word to mark."""
    n_positive, n_negative = (skipped.get((one, sort), 0) for sort in ("positive", negatives))
    if not n_positive and not n_negative:
        return reason
    found = f"{n_positive} held-out contexts and {n_negative} {negatives} negatives"
    left_out = f"without a word to mark, left out: {found}"
    return f"{reason}; {left_out}" if reason else left_out
