"""What a feature does to the model, without a judge: steering's own scores, and ablation."""

from __future__ import annotations

from assets.ablation.tables import ABLATION_EFFECTS
from assets.steering.feature_tables import JUDGE_FREE_SCORES, STEERING_SUMMARIES
from resources.lineage.step import FeatureRows, Step, facts_of, number_text, said_of


def effect_steps(rows: FeatureRows) -> list[Step]:
    """Pooled steering scores, judge-free scores and ablation of the feature."""
    return [*_summaries(rows), *_judge_free(rows), *_ablation(rows)]


def _summaries(rows: FeatureRows) -> list[Step]:
    made = rows.made(STEERING_SUMMARIES)
    steps = []
    for row in rows.rows(STEERING_SUMMARIES):
        interval = ""
        if row["gain_low"] is not None:
            interval = f" ({number_text(row['gain_low'])} to {number_text(row['gain_high'])})"
        said = (
            f"{number_text(row['score'])} of 2, {number_text(row['gain'])}{interval} over "
            f"unsteered texts, {row['n_judged']} of {row['n_expected']} texts judged"
        )
        judged = "" if row["label_kind"] is None else f"{row['label_kind']} label, "
        text = f"{judged}{row['pooling']}, sign {row['sign']}: {said_of(row, said)}"
        steps.append(Step("steering_summary", text, facts_of(row), made))
    return steps


def _judge_free(rows: FeatureRows) -> list[Step]:
    made = rows.made(JUDGE_FREE_SCORES)
    steps = []
    for row in rows.rows(JUDGE_FREE_SCORES):
        which = "label" if row["label_kind"] is None else f"{row['label_kind']} label"
        said = (
            f"input score {number_text(row['input_score'])}, output score "
            f"{number_text(row['output_score'])} (unsteered "
            f"{number_text(row['output_score_base'])}), {which} {row['label']!r} "
            f"{number_text(row['label_logprob_gain'])} nats a token"
        )
        text = f"{row['sign']} at {row['target_kl_nats']} nats: {said_of(row, said)}"
        steps.append(Step("judge_free_score", text, facts_of(row), made))
    return steps


def _ablation(rows: FeatureRows) -> list[Step]:
    made = rows.made(ABLATION_EFFECTS)
    steps = []
    for row in rows.rows(ABLATION_EFFECTS):
        what = f"{row['ablation']}{', permuted null' * row['is_null']}"
        said = (
            f"cross-entropy {number_text(row['delta_on'])} nats on target and "
            f"{number_text(row['delta_off'])} off, self-repair {number_text(row['self_repair'])}"
        )
        steps.append(Step("ablation", f"{what}: {said_of(row, said)}", facts_of(row), made))
    return steps
