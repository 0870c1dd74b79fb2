"""The steering assets: `calibrations`, `steered_texts` and `steering_scores` of one fit."""

from collections.abc import Iterator

import dagster as dg

from assets.asset_specs import specs_of_checks, table_specs
from assets.common_inputs import FIT_COEFFICIENTS, FITTED, settings_in_effect
from assets.evidence.tables import VOCAB_PROJECTION
from assets.factorization.tables import COEFFICIENTS
from assets.fingerprints import code_version
from assets.labels.tables import LABELS, LLM_CALLS
from assets.partitions import SITE_FITS
from assets.recipe import Input, Recipe
from assets.shared.plots import markdown_plot
from assets.shared.progress import Progress
from assets.stage_run import StageRun
from assets.steering.prompts import judge_versions
from assets.steering.tables import CALIBRATIONS, STEERED_TEXTS, STEERING_SCORES, TABLES
from resources.chat_resource import ChatResource
from resources.lake import LakeResource
from resources.model_resource import SubjectModelResource
from resources.study import StudiesResource

# Rows that are reused one by one are made by these and what they import.
CALIBRATION_MODULE = "assets.steering.calibration"
GENERATION_MODULE = "assets.steering.generation"

RECIPE = Recipe(
    "steering",
    stage="steering",
    tables=TABLES,
    inputs=(
        *FITTED,
        FIT_COEFFICIENTS,
        Input(LABELS, columns=("feature_id", "kind", "label", "status")),
        Input(VOCAB_PROJECTION, columns=("feature_id", "sign", "rank_in_sign", "token_id")),
    ),
    settings=lambda spec: {"steering": settings_in_effect(spec.study.steering, spec)},
    prompts=lambda spec: judge_versions(spec.study.steering.judge),
    uses_model=True,
    uses_llm=True,
)


@dg.multi_asset(
    name=RECIPE.name,
    specs=table_specs(RECIPE),
    check_specs=specs_of_checks(RECIPE),
    partitions_def=SITE_FITS,
    pool="subject_model",
)
def steering_assets(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    studies: StudiesResource,
    subject_models: SubjectModelResource,
    chat: ChatResource,
) -> Iterator[dg.MaterializeResult]:
    run = StageRun(context, RECIPE, lake, studies, subject_models, chat)
    yield from run.materialize(_steer)


def _steer(run: StageRun) -> Iterator[dg.MaterializeResult]:
    import polars as pl

    from assets.factorization.strength_order import strongest_features
    from assets.labels.call_costs import cost_summary
    from assets.labels.call_records import llm_calls_frame
    from assets.steering.calibration import calibrate_strengths
    from assets.steering.forward_count import count_forward_tokens
    from assets.steering.generation import SamplingSettings, generate_steered
    from assets.steering.judging import judge_texts, labels_to_judge
    from assets.steering.text_plan import plan_texts, texts_frame

    spec = run.fit()
    config = spec.study.steering
    subject = run.subject()
    fitted = run.fitted(spec)
    limit = config.max_features_controls if spec.fit.is_control else config.max_features
    feature_ids = strongest_features(
        run.lake.read(COEFFICIENTS, spec.partition, columns=("feature_id", "coefficient")), limit
    )
    row_of = {feature_id: row for row, feature_id in enumerate(fitted.feature_ids)}
    rows = [row_of[feature_id] for feature_id in feature_ids]
    directions = fitted.dictionary[rows].to(subject.device)
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
    model_identity = (subject.revision, subject.dtype, spec.site.activation_site.key)
    with Progress(run.log, "calibration", 0, "strengths") as progress:
        calibration = calibrate_strengths(
            subject.model,
            spec.site.activation_site,
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
                spec.site.activation_site,
                plan.to_generate,
                settings,
                on_progress=progress.reach,
            ),
        )
    with Progress(run.log, "judging", 0, "calls") as progress:
        scores, replies = judge_texts(
            texts,
            labels_to_judge(run.lake.read(LABELS, spec.partition)),
            run.chat_model(progress.reach),
            judge=config.judge,
            purpose="steering_judge",
        )
    mean_scores = (
        scores.drop_nulls("score").group_by("sign").agg(pl.col("score").mean()).sort("sign")
    )
    norm = calibration.median_activation_norm
    reached = calibration.rows.select("strength", kl_nats="achieved_kl_nats")
    curve = (
        pl.concat([calibration.curve.select("strength", "kl_nats"), reached])
        .drop_nulls()
        .filter(pl.col("kl_nats") > 0)
    )
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
                    markdown_plot(
                        lambda axes: (
                            axes.loglog(curve["strength"], curve["kl_nats"], ".", alpha=0.4),
                            [axes.axhline(kl, lw=0.5) for kl in config.target_kl_nats],
                        ),
                        "KL against strength",
                        "strength α",
                        "KL(base‖steered) [nats]",
                    )
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
                "mean_score_by_sign": dict(mean_scores.iter_rows()),
            },
        },
    )
