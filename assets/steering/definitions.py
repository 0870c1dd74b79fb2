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
        "assets.steering.text_plan",
        "assets.steering.judged_labels",
        "assets.steering.judging",
        "assets.steering.judge_prompt",
        "assets.factorization.strength_order",
        "assets.labels.call_costs",
        "assets.labels.call_records",
        "assets.shared.covered_mean",
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
    settings=lambda spec: {
        "steering": spec.study.steering.model_dump(include={"seed", *_OF_INTERVALS})
    },
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
    settings=lambda spec: {"steering": spec.study.steering.model_dump(include={"neutral_prompts"})},
    modules=(JUDGE_FREE_MODULE, STEERED_SITE_MODULE, "assets.labels.chosen_labels"),
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
    from assets.shared.covered_mean import covered_mean
    from assets.shared.feature_limit import feature_limit
    from assets.steering.calibration import calibrate_strengths
    from assets.steering.forward_count import count_forward_tokens
    from assets.steering.generation import SamplingSettings, generate_steered
    from assets.steering.judged_labels import labels_to_judge
    from assets.steering.judging import judge_texts
    from assets.steering.plots import kl_plot
    from assets.steering.steered_site import steered_directions, steered_site
    from assets.steering.text_plan import plan_texts, texts_frame

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
    fitted_at = spec.site.activation_site
    site = steered_site(subject.model, fitted_at)
    directions = steered_directions(
        subject.model, fitted_at, fitted.dictionary[rows].to(subject.device)
    )
    prompt_ids = [subject.tokenizer(prompt)["input_ids"] for prompt in config.neutral_prompts]
    promoted = run.lake.read(VOCAB_PROJECTION, spec.partition).filter(sign="+")
    own_tokens = {
        feature_id: ids
        for (feature_id,), ids in (
            (key, group["token_id"].head(10).to_list())
            for key, group in promoted.group_by("feature_id", maintain_order=True)
        )
    }

    # Judging is no part of these: a new judge leaves strengths and texts as they are.
    model_identity = (subject.revision, subject.dtype, site.key)
    with Progress(run.log, "calibration", 0, "strengths") as progress:
        calibration = calibrate_strengths(
            subject.model,
            site,
            directions,
            feature_ids=feature_ids,
            signs=config.signs,
            target_kl_nats=config.target_kl_nats,
            prompt_ids=prompt_ids,
            tolerance=config.tolerance,
            max_evaluations=config.max_evaluations,
            max_strength_ratio=config.max_strength_ratio,
            own_tokens=own_tokens,
            made_by=(code_version("steering", (CALIBRATION_MODULE,)), *model_identity),
            previous=run.lake.read(CALIBRATIONS, spec.partition),
            on_progress=progress.reach,
        )
    settings = SamplingSettings(
        max_new_tokens=config.max_new_tokens,
        top_k=config.top_k,
        top_p=config.top_p,
        temperature=config.temperature,
        batch_rows=config.batch_rows,
    )
    plan = plan_texts(
        calibration.rows,
        dict(zip(feature_ids, directions, strict=True)),
        prompts=config.neutral_prompts,
        prompt_ids=prompt_ids,
        n_texts=config.n_texts,
        seed=config.seed,
        settings=settings,
        made_by=(code_version("steering", (GENERATION_MODULE,)), *model_identity),
        previous=run.lake.read(STEERED_TEXTS, spec.partition),
    )
    with (
        Progress(run.log, "steered texts", len(plan.to_generate), "texts") as progress,
        count_forward_tokens(subject.model) as of_texts,
    ):
        texts = texts_frame(
            plan,
            generate_steered(
                subject.model,
                subject.tokenizer,
                site,
                plan.to_generate,
                settings,
                on_progress=progress.reach,
            ),
        )
    with Progress(run.log, "judging", 0, "calls") as progress:
        scores, replies = judge_texts(
            texts,
            labels_to_judge(run.lake.read(LABELS, spec.partition)),
            run.chat_model("judge_llm", progress.reach),
            judge=config.judge,
            judged=config.judged_labels,
            purpose="steering_judge",
        )
    norm = calibration.median_activation_norm
    yield from run.write(
        {CALIBRATIONS: calibration.rows, STEERED_TEXTS: texts, STEERING_SCORES: scores},
        side_frames={LLM_CALLS: llm_calls_frame(replies, purpose="steering_judge")},
        metadata={
            CALIBRATIONS.name: {
                "layer_token_evaluations": calibration.layer_token_evaluations,
                "forward_tokens": calibration.forward_tokens,
                "rows_reused": calibration.rows_reused,
                "rows_computed": calibration.rows_computed,
                **({} if norm is None else {"median_activation_norm": norm}),
                "kl_against_strength": dg.MetadataValue.md(
                    kl_plot(calibration.curve, calibration.rows, config.target_kl_nats)
                ),
            },
            STEERED_TEXTS.name: {
                "layer_token_evaluations": subject.n_layers * of_texts.n_tokens,
                "forward_tokens": of_texts.n_tokens,
                "rows_reused": plan.rows_reused,
                "rows_computed": plan.rows_computed,
            },
            STEERING_SCORES.name: {
                **cost_summary(replies),
                "mean_score_by_sign": {
                    f"{sign} {kind}": covered_mean(rows, "score")
                    for (sign, kind), rows in scores.sort("sign", "label_kind").group_by(
                        "sign", "label_kind", maintain_order=True
                    )
                },
            },
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
    frame = steering_summaries(
        scores, n_bootstrap=config.n_bootstrap, confidence=config.confidence, seed=config.seed
    )
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
    from assets.labels.chosen_labels import chosen_labels
    from assets.steering.input_score import first_tokens, input_scores
    from assets.steering.judge_free import FeatureTokens, judge_free_scores
    from assets.steering.label_logprob import label_token_ids
    from assets.steering.steered_site import steered_directions, steered_site

    spec = run.fit()
    subject = run.subject()
    fitted = run.fitted(spec)
    fitted_at = spec.site.activation_site
    directions = steered_directions(subject.model, fitted_at, fitted.dictionary.to(subject.device))
    calibrations = run.lake.read(CALIBRATIONS, spec.partition)
    projection = run.lake.read(VOCAB_PROJECTION, spec.partition)
    labels = {
        feature_id: FeatureTokens(
            chosen.label,
            chosen.kind,
            () if chosen.label is None else label_token_ids(subject.tokenizer, chosen.label),
            chosen.reason,
        )
        for feature_id, chosen in chosen_labels(run.lake.read(LABELS, spec.partition)).items()
    }
    with Progress(run.log, "judge-free scores", len(calibrations), "rows") as progress:
        scored = judge_free_scores(
            subject.model,
            steered_site(subject.model, fitted_at),
            calibrations,
            dict(zip(fitted.feature_ids, directions, strict=True)),
            prompt_ids=[
                subject.tokenizer(prompt)["input_ids"]
                for prompt in spec.study.steering.neutral_prompts
            ],
            own_tokens=first_tokens(projection),
            labels=labels,
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
        metadata={
            JUDGE_FREE_SCORES.name: {
                "layer_token_evaluations": scored.layer_token_evaluations,
                "forward_tokens": scored.forward_tokens,
                "rows_reused": scored.rows_reused,
                "rows_computed": scored.rows_computed,
            }
        },
    )


steering_assets = [steered_assets, summary_assets, judge_free_assets]
