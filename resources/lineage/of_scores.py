"""Scores of a feature, with what they were measured on and the judge's calls."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from assets.catalogue.tables import FEATURES
from assets.detection.tables import CONCEPT_DETECTION, PROBE_SENTENCES
from assets.faithfulness.tables import FEATURE_FAITHFULNESS
from assets.labels.tables import LABEL_SCORES
from assets.steering.feature_tables import STEERING_SUMMARIES
from assets.steering.judged_labels import judged_label_of
from assets.steering.tables import CALIBRATIONS, STEERED_TEXTS, STEERING_SCORES
from resources.lineage.step import FeatureRows, Step, facts_of, number_text, said_of

# The catalogue's name of what steering_summaries says of a label's best setting.
BEST = {
    "steering_score": "score",
    "steering_base_score": "base_score",
    "steering_gain": "gain",
    "steering_sign": "chosen_sign",
    "steering_target_kl_nats": "target_kl_nats",
}


def score_steps(rows: FeatureRows) -> list[Step]:
    """Every score that was made for the feature, in the order of the stages."""
    return [
        *_label_scores(rows),
        *_detection(rows),
        *_steering(rows),
        *_faithfulness(rows),
    ]


def _label_scores(rows: FeatureRows) -> list[Step]:
    made = rows.made(LABEL_SCORES)
    steps = []
    for row in rows.rows(LABEL_SCORES):
        which = f"shuffled control, {row['judged_label']!r}, " if row["is_shuffled"] else ""
        which += f"{row['negatives'] or 'random'} negatives"
        if row["correlation"] is None:
            interval = f"{number_text(row['auroc_low'])} to {number_text(row['auroc_high'])}"
            score = f"AUROC {number_text(row['auroc'])} ({interval})"
        else:
            score = f"correlation {number_text(row['correlation'])}"
        said = f"{score} on {row['n_positive']} held-out contexts and {row['n_negative']} negatives"
        calls = rows.calls(row["request_hashes"] or (), made)
        text = f"{row['kind']}, {row['method']}, {which}: {said_of(row, said)}"
        steps.append(Step("label_score", text, facts_of(row), made, tuple(calls)))
    return steps


def _detection(rows: FeatureRows) -> list[Step]:
    made = rows.made(CONCEPT_DETECTION)
    steps = []
    for row in rows.rows(CONCEPT_DETECTION):
        interval = f"{number_text(row['auroc_low'])} to {number_text(row['auroc_high'])}"
        said = f"{row['concept']!r} AUROC {number_text(row['auroc'])} ({interval})"
        if row["s_cd"] is not None:
            said += f", S_CD {number_text(row['s_cd'])}"
        sources = _probe_steps(rows) if row["source"] == "generated" else ()
        of_label = "" if row["label_kind"] is None else f" for the {row['label_kind']} label"
        text = f"{row['source']}{of_label}: {said_of(row, said)}"
        steps.append(Step("detection", text, facts_of(row), made, sources))
    return steps


def _probe_steps(rows: FeatureRows) -> tuple[Step, ...]:
    found = rows.rows(PROBE_SENTENCES)
    made = rows.made(PROBE_SENTENCES)
    sentences = tuple(
        Step(
            "probe_sentence",
            f"{row['kind']}: " + said_of(row, f"{number_text(row['score'])} {row['sentence']!r}"),
            facts_of(row),
        )
        for row in found
    )
    calls = rows.calls([row["request_hash"] for row in found], made)
    return (Step("probe_sentences", f"{len(found)}", {}, made, (*calls, *sentences)),)


def _steering(rows: FeatureRows) -> list[Step]:
    """A step for each label that texts are judged on; the first says how strengths were found."""
    of_label: dict[str | None, list[dict[str, Any]]] = {}
    for row in rows.rows(STEERING_SCORES):
        of_label.setdefault(judged_label_of(row["label_kind"]), []).append(row)
    best = _best_settings(rows, set(of_label))
    steps = [
        _judged_step(rows, judged, ratings, best.get(judged))
        for judged, ratings in of_label.items()
    ]
    if steps:
        first = steps[0]
        steps[0] = replace(first, sources=(*_calibrations(rows), *first.sources))
    return steps


def _best_settings(
    rows: FeatureRows, judged: Collection[str | None]
) -> dict[str | None, dict[str, Any]]:
    """Each judged label's score with the sign and target KL of its texts, where it has one."""
    pooled = rows.rows(STEERING_SUMMARIES, sign="either", pooling="best_kl")
    found = {
        row["label_kind"]: {name: row[column] for name, column in BEST.items()}
        for row in pooled
        if row["score"] is not None
    }
    feature = next(iter(rows.rows(FEATURES)), {})
    # Lakes from before texts were judged on several labels, or were pooled in a table.
    if len(judged) == 1 and feature.get("steering_sign") is not None:
        (only,) = judged
        found[only] = {name: feature[name] for name in feature if name.startswith("steering_")}
    return found


def _judged_step(
    rows: FeatureRows,
    judged: str | None,
    ratings: Sequence[Mapping[str, Any]],
    best: Mapping[str, Any] | None,
) -> Step:
    """The score by one judged label, with the texts of its best setting and their ratings."""
    by = "" if judged is None else f"by the {judged} label "
    made = rows.made(STEERING_SCORES)
    if best is None:
        said = f"{by}no score: {ratings[0]['status']}, {ratings[0]['reason']}"
        return Step("steering", said, {"judged_label": judged}, made)
    setting = {
        "sign": best["steering_sign"],
        "target_kl_nats": best["steering_target_kl_nats"],
    }
    text_of = {_setting_of(row): row for row in rows.rows(STEERED_TEXTS, **setting)}
    rated = [
        _rating_step(row, text_of.get(_setting_of(row)), rows)
        for row in ratings
        if all(row[name] == value for name, value in setting.items())
    ]
    said = (
        f"{by}{number_text(best['steering_score'])} of 2, {number_text(best['steering_gain'])} "
        f"over unsteered texts, with sign {setting['sign']} at {setting['target_kl_nats']} nats"
    )
    return Step("steering", said, {"judged_label": judged, **best}, made, tuple(rated))


def _calibrations(rows: FeatureRows) -> list[Step]:
    made = rows.made(CALIBRATIONS)
    return [
        Step(
            "calibration",
            f"{row['sign']} at {row['target_kl_nats']} nats: "
            + said_of(
                row,
                f"strength {number_text(row['strength'])}, achieved "
                f"{number_text(row['achieved_kl_nats'])} nats in {row['n_evaluations']} tries",
            ),
            facts_of(row),
            made,
        )
        for row in rows.rows(CALIBRATIONS)
    ]


def _rating_step(row: Mapping[str, Any], text: Mapping[str, Any] | None, rows: FeatureRows) -> Step:
    made = rows.made(STEERING_SCORES)
    shown = None if text is None else f"{text['prompt']}{text['text'] or ''}"
    said = f"{shown!r} for {row['label']!r}: " + said_of(
        row,
        f"{number_text(row['score'])} (concept {number_text(row['concept_rating'])}, fluency "
        f"{number_text(row['fluency_rating'])})",
    )
    calls = rows.calls([row["concept_request_hash"], row["fluency_request_hash"]], made)
    seed = {} if text is None else {"text": shown, "text_seed": text["seed"]}
    of_text = None if text is None else rows.made(STEERED_TEXTS)
    return Step("rated_text", said, facts_of(row) | seed, of_text, tuple(calls))


def _faithfulness(rows: FeatureRows) -> list[Step]:
    made = rows.made(FEATURE_FAITHFULNESS)
    return [
        Step(
            "faithfulness",
            said_of(
                row,
                f"cross-entropy {row['delta_cross_entropy'] or 0.0:+.4f} nats without the "
                f"feature, in {row['n_documents']} documents",
            ),
            facts_of(row),
            made,
        )
        for row in rows.rows(FEATURE_FAITHFULNESS)
    ]


def _setting_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["sign"], row["target_kl_nats"], row["text_index"]
