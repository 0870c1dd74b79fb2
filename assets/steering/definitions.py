"""The steering assets of one fit: strengths, texts, their scores, summaries; judge-free scores."""

from collections.abc import Iterator

import dagster as dg

from assets.asset_specs import specs_of_checks, table_specs
from assets.common_inputs import (
    FIT_COEFFICIENTS,
    FITTED,
    FITTED_DICTIONARY,
    settings_in_effect,
)
from assets.evidence.tables import CONTEXTS, VOCAB_PROJECTION
from assets.factorization.tables import COEFFICIENTS
from assets.fingerprints import code_version
from assets.labels.tables import LABELS, LLM_CALLS
from assets.partitions import SITE_FITS
from assets.recipe import Input, Recipe
from assets.shared.progress import Progress
from assets.stage_run import StageRun
from assets.steering.feature_tables import JUDGE_FREE_SCORES, STEERING_SUMMARIES
from assets.steering.prompts import judge_versions
from assets.steering.tables import CALIBRATIONS, STEERED_TABLES, STEERED_TEXTS, STEERING_SCORES
from resources.chat_resource import ChatResource
from resources.lake import LakeResource
from resources.model_resource import SubjectModelResource
from resources.study_files import StudiesResource

# Rows that are reused one by one are made by these and what they import.
CALIBRATION_MODULE = "assets.steering.calibration"
GENERATION_MODULE = "assets.steering.generation"
JUDGE_FREE_MODULE = "assets.steering.judge_free"
# Chooses site and directions, which the fingerprints of rows contain.
STEERED_SITE_MODULE = "assets.steering.steered_site"
_OF_INTERVALS = ("n_bootstrap", "confidence")
# What a materialization says of the model's work for its rows.
_WORK = ("layer_token_evaluations", "forward_tokens", "rows_reused", "rows_computed")

RECIPE = Recipe(
    "steering",
    stage="steering",
    tables=STEERED_TABLES,
    inputs=(
        *FITTED,
        FIT_COEFFICIENTS,
        Input(LABELS, columns=("feature_id", "kind", "label", "status", "reason")),
        Input(VOCAB_PROJECTION, columns=("feature_id", "sign", "rank_in_sign", "token_id")),
    ),
    settings=lambda spec: {
        "steering": settings_in_effect(spec.study.steering, spec, *_OF_INTERVALS)
    },
    prompts=lambda spec: judge_versions(spec.study.steering.judge),
    modules=(
        CALIBRATION_MODULE,
        GENERATION_MODULE,
        STEERED_SITE_MODULE,
        "assets.steering.steered_fit",
        "assets.steering.text_plan",
        "assets.steering.judged_labels",
        "assets.steering.judging",
        "assets.steering.judge_prompt",
        "assets.steering.score_summary",
        "assets.factorization.strength_order",
        "assets.labels.call_costs",
        "assets.labels.call_records",
        "assets.shared.feature_limit",
    ),
    uses_model=True,
    llms=("judge_llm",),
)
SUMMARIES_RECIPE = Recipe(
    "steering_summaries",
    stage="steering",
    tables=(STEERING_SUMMARIES,),
    inputs=(Input(STEERING_SCORES),),
    settings=lambda spec: {"steering": spec.study.steering.model_dump(include={"confidence"})},
    modules=("assets.steering.summaries",),
)
JUDGE_FREE_RECIPE = Recipe(
    "judge_free_scores",
    stage="steering",
    tables=(JUDGE_FREE_SCORES,),
    inputs=(
        *FITTED_DICTIONARY,
        Input(
            CALIBRATIONS,
            columns=("feature_id", "sign", "target_kl_nats", "strength", "status", "reason"),
        ),
        Input(LABELS, columns=("feature_id", "kind", "label", "status", "reason")),
        Input(CONTEXTS, columns=("feature_id", "kind", "rank_in_kind", "token")),
        Input(
            VOCAB_PROJECTION, columns=("feature_id", "sign", "rank_in_sign", "token_id", "token")
        ),
    ),
    settings=lambda spec: {
        "steering": spec.study.steering.model_dump(include={"neutral_prompts", "judged_labels"})
    },
    modules=(JUDGE_FREE_MODULE, STEERED_SITE_MODULE, "assets.steering.judged_labels"),
    uses_model=True,
)
RECIPES = (RECIPE, SUMMARIES_RECIPE, JUDGE_FREE_RECIPE)


@dg.multi_asset(
    name=RECIPE.name,
    specs=table_specs(RECIPE),
    check_specs=specs_of_checks(RECIPE),
    partitions_def=SITE_FITS,
    pool="subject_model",
)
def steered_assets(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    studies: StudiesResource,
    subject_models: SubjectModelResource,
    chat: ChatResource,
) -> Iterator[dg.MaterializeResult]:
    run = StageRun(context, RECIPE, lake, studies, subject_models, chat)
    yield from run.materialize(_steer)


def _steer(run: StageRun) -> Iterator[dg.MaterializeResult]:
    from assets.factorization.strength_order import strongest_features
    from assets.labels.call_costs import cost_summary
    from assets.labels.call_records import llm_calls_frame
    from assets.shared.feature_limit import feature_limit
    from assets.steering.judged_labels import labels_to_judge
    from assets.steering.judging import judge_texts
    from assets.steering.plots import kl_plot
    from assets.steering.score_summary import score_summary
    from assets.steering.steered_fit import SteeredFit

    spec = run.fit()
    config = spec.study.steering
    subject = run.subject()
    fitted = run.fitted(spec)
    limit = feature_limit("steering", config, spec.fit.is_control).n
    feature_ids = strongest_features(
        run.lake.read(COEFFICIENTS, spec.partition, columns=("feature_id", "coefficient")), limit
    )
    row_of = {feature_id: row for row, feature_id in enumerate(fitted.feature_ids)}
    rows = [row_of[feature_id] for feature_id in feature_ids]
    steered = SteeredFit(
        subject.model,
        subject.tokenizer,
        (subject.revision, subject.dtype),
        spec.site.activation_site,
        feature_ids,
        fitted.dictionary[rows].to(subject.device),
        config,
    )
    with Progress(run.log, "calibration", 0, "strengths") as progress:
        calibration = steered.calibrate(
            run.lake.read(VOCAB_PROJECTION, spec.partition),
            code=code_version("steering", (CALIBRATION_MODULE,)),
            previous=run.lake.read(CALIBRATIONS, spec.partition),
            on_progress=progress.reach,
        )
    with Progress(run.log, "steered texts", 0, "texts") as progress:
        texts = steered.write_texts(
            calibration.rows,
            code=code_version("steering", (GENERATION_MODULE,)),
            previous=run.lake.read(STEERED_TEXTS, spec.partition),
            on_progress=progress.reach,
        )
    with Progress(run.log, "judging", 0, "calls") as progress:
        scores, replies = judge_texts(
            texts.rows,
            labels_to_judge(run.lake.read(LABELS, spec.partition)),
            run.chat_model("judge_llm", progress.reach),
            judge=config.judge,
            judged=config.judged_labels,
            purpose="steering_judge",
        )
    norm = calibration.median_activation_norm
    yield from run.write(
        {CALIBRATIONS: calibration.rows, STEERED_TEXTS: texts.rows, STEERING_SCORES: scores},
        side_frames={LLM_CALLS: llm_calls_frame(replies, purpose="steering_judge")},
        metadata={
            CALIBRATIONS.name: {
                **{name: getattr(calibration, name) for name in _WORK},
                **({} if norm is None else {"median_activation_norm": norm}),
                "kl_against_strength": dg.MetadataValue.md(
                    kl_plot(calibration.curve, calibration.rows, config.target_kl_nats)
                ),
            },
            STEERED_TEXTS.name: {name: getattr(texts, name) for name in _WORK},
            STEERING_SCORES.name: {**cost_summary(replies), **score_summary(scores)},
        },
    )


@dg.multi_asset(
    name=SUMMARIES_RECIPE.name,
    specs=table_specs(SUMMARIES_RECIPE),
    check_specs=specs_of_checks(SUMMARIES_RECIPE),
    partitions_def=SITE_FITS,
)
def summary_assets(
    context: dg.AssetExecutionContext, lake: LakeResource, studies: StudiesResource
) -> Iterator[dg.MaterializeResult]:
    yield from StageRun(context, SUMMARIES_RECIPE, lake, studies).materialize(_summarize)


def _summarize(run: StageRun) -> Iterator[dg.MaterializeResult]:
    from assets.steering.plots import mean_score_plot
    from assets.steering.summaries import steering_summaries

    spec = run.fit()
    config = spec.study.steering
    scores = run.lake.read(STEERING_SCORES, spec.partition)
    frame = steering_summaries(scores, confidence=config.confidence)
    yield from run.write(
        {STEERING_SUMMARIES: frame},
        metadata={
            STEERING_SUMMARIES.name: {
                "mean_score_by_target": dg.MetadataValue.md(mean_score_plot(scores))
            }
        },
    )


@dg.multi_asset(
    name=JUDGE_FREE_RECIPE.name,
    specs=table_specs(JUDGE_FREE_RECIPE),
    check_specs=specs_of_checks(JUDGE_FREE_RECIPE),
    partitions_def=SITE_FITS,
    pool="subject_model",
)
def judge_free_assets(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    studies: StudiesResource,
    subject_models: SubjectModelResource,
) -> Iterator[dg.MaterializeResult]:
    run = StageRun(context, JUDGE_FREE_RECIPE, lake, studies, subject_models)
    yield from run.materialize(_score_without_judge)


def _score_without_judge(run: StageRun) -> Iterator[dg.MaterializeResult]:
    from assets.steering.input_score import first_tokens, input_scores
    from assets.steering.judge_free import judge_free_scores
    from assets.steering.judged_labels import kinds_by_sign, labels_to_judge
    from assets.steering.label_logprob import label_token_ids
    from assets.steering.steered_site import steered_directions, steered_site

    spec = run.fit()
    config = spec.study.steering
    subject = run.subject()
    fitted = run.fitted(spec)
    fitted_at = spec.site.activation_site
    directions = steered_directions(subject.model, fitted_at, fitted.dictionary.to(subject.device))
    calibrations = run.lake.read(CALIBRATIONS, spec.partition)
    projection = run.lake.read(VOCAB_PROJECTION, spec.partition)
    labels = labels_to_judge(run.lake.read(LABELS, spec.partition))
    texts = {one.label for one in labels.values() if one.label is not None}
    with Progress(run.log, "judge-free scores", len(calibrations), "rows") as progress:
        scored = judge_free_scores(
            subject.model,
            steered_site(subject.model, fitted_at),
            calibrations,
            dict(zip(fitted.feature_ids, directions, strict=True)),
            prompt_ids=[subject.tokenizer(p)["input_ids"] for p in config.neutral_prompts],
            own_tokens=first_tokens(projection),
            labels=labels,
            label_ids={label: label_token_ids(subject.tokenizer, label) for label in texts},
            kinds=kinds_by_sign(config.judged_labels, set(calibrations["sign"])),
            input_scores=input_scores(run.lake.read(CONTEXTS, spec.partition), projection),
            made_by=(
                code_version("steering", (JUDGE_FREE_MODULE,)),
                subject.revision,
                subject.dtype,
            ),
            previous=run.lake.read(JUDGE_FREE_SCORES, spec.partition),
            on_progress=progress.reach,
        )
    yield from run.write(
        {JUDGE_FREE_SCORES: scored.rows},
        metadata={JUDGE_FREE_SCORES.name: {name: getattr(scored, name) for name in _WORK}},
    )


steering_assets = [steered_assets, summary_assets, judge_free_assets]
