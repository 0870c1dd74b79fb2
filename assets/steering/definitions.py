"""The steering assets: `calibrations`, `steered_texts` and `steering_scores` of one fit."""

from collections.abc import Iterator

import dagster as dg

from assets.evidence.tables import VOCAB_PROJECTION
from assets.factorization.tables import COEFFICIENTS, DICTIONARY
from assets.labels.tables import LABELS, LLM_CALLS
from assets.partitions import SITE_FITS
from assets.shared.plots import markdown_plot
from assets.shared.progress import Progress
from assets.stage_run import StageRun, specs_of_checks, table_specs
from assets.steering.tables import CALIBRATIONS, STEERED_TEXTS, STEERING_SCORES, TABLES
from resources.chat_resource import ChatResource
from resources.lake import LakeResource
from resources.model_resource import SubjectModelResource
from resources.study import StudiesResource


@dg.multi_asset(
    name="steering",
    specs=table_specs(TABLES, deps=[DICTIONARY.name, LABELS.name, VOCAB_PROJECTION.name]),
    check_specs=specs_of_checks(TABLES),
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
    import polars as pl

    from assets.factorization.strength_order import strongest_features
    from assets.labels.call_costs import cost_summary
    from assets.labels.call_records import llm_calls_frame
    from assets.steering.calibration import calibrate_strengths
    from assets.steering.generation import SamplingSettings, generate_steered
    from assets.steering.judging import judge_texts, labels_to_judge
    from assets.steering.text_plan import plan_texts, texts_frame

    run = StageRun(context, lake, studies)
    spec = run.fit()
    config = spec.study.steering
    subject = subject_models.load(spec.site.model)
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

    with Progress(
        run.log, "calibration", len(feature_ids) * len(config.signs), "curves"
    ) as progress:
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
            on_progress=progress.reach,
        )
    plan = plan_texts(
        calibration.rows,
        dict(zip(feature_ids, directions, strict=True)),
        prompts=config.neutral_prompts,
        prompt_ids=prompt_ids,
        n_texts=config.n_texts,
        seed=config.seed,
    )
    with Progress(run.log, "steered texts", len(plan.to_generate), "texts") as progress:
        texts = texts_frame(
            plan,
            generate_steered(
                subject.model,
                subject.tokenizer,
                spec.site.activation_site,
                plan.to_generate,
                SamplingSettings(
                    max_new_tokens=config.max_new_tokens,
                    top_k=config.top_k,
                    top_p=config.top_p,
                    temperature=config.temperature,
                    batch_rows=config.batch_rows,
                ),
                on_progress=progress.reach,
            ),
        )
    with Progress(run.log, "judging", 0, "calls") as progress:
        scores, replies = judge_texts(
            texts,
            labels_to_judge(run.lake.read(LABELS, spec.partition)),
            chat.open(spec.study.llm, run.lake, progress.reach),
            judge=config.judge,
            purpose="steering_judge",
        )
    mean_scores = (
        scores.drop_nulls("score").group_by("sign").agg(pl.col("score").mean()).sort("sign")
    )
    curve = calibration.curve.drop_nulls().filter(calibration.curve["kl_nats"] > 0)
    yield from run.write(
        {CALIBRATIONS: calibration.rows, STEERED_TEXTS: texts, STEERING_SCORES: scores},
        {**spec.partition, "stage": "steering"},
        configs=[config, spec.study.llm],
        side_frames={LLM_CALLS: llm_calls_frame(replies, purpose="steering_judge")},
        metadata={
            CALIBRATIONS.name: {
                "layer_token_evaluations": calibration.layer_token_evaluations,
                "median_activation_norm": calibration.median_activation_norm,
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
            STEERING_SCORES.name: {
                **cost_summary(replies),
                "mean_score_by_sign": dict(mean_scores.iter_rows()),
            },
        },
    )
