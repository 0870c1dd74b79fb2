"""The labels assets of one fit: `labels` and `label_scores`; their LLM calls go beside them."""

from collections.abc import Iterator

import dagster as dg

from assets.asset_specs import specs_of_checks, table_specs
from assets.common_inputs import FIT_COEFFICIENTS, FIT_ROW, settings_in_effect
from assets.evidence.tables import CONTEXTS, VOCAB_PROJECTION
from assets.factorization.tables import COEFFICIENTS
from assets.labels import prompts, score_prompts
from assets.labels.prompt import prompt_versions
from assets.labels.tables import LABEL_SCORES, LABELS, LLM_CALLS
from assets.partitions import SITE_FITS
from assets.recipe import Input, Recipe
from assets.shared.progress import Progress
from assets.stage_run import StageRun
from resources.chat_resource import ChatResource
from resources.lake import LakeResource
from resources.study_files import StudiesResource

RECIPE = Recipe(
    "labels",
    stage="labels",
    tables=(LABELS, LABEL_SCORES),
    inputs=(FIT_ROW, FIT_COEFFICIENTS, Input(CONTEXTS), Input(VOCAB_PROJECTION)),
    settings=lambda spec: {"labels": settings_in_effect(spec.study.labels, spec)},
    prompts=lambda spec: prompt_versions(prompts) | prompt_versions(score_prompts),
    llms=("llm", "judge_llm"),
)


@dg.multi_asset(
    name=RECIPE.name,
    specs=table_specs(RECIPE),
    check_specs=specs_of_checks(RECIPE),
    partitions_def=SITE_FITS,
)
def labels_assets(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    studies: StudiesResource,
    chat: ChatResource,
) -> Iterator[dg.MaterializeResult]:
    run = StageRun(context, RECIPE, lake, studies, chat=chat)
    yield from run.materialize(_label)


def _label(run: StageRun) -> Iterator[dg.MaterializeResult]:
    from assets.factorization.frames import feature_ids_of
    from assets.factorization.strength_order import strongest_features
    from assets.labels.asked_texts import skipped_contexts
    from assets.labels.call_costs import cost_summary
    from assets.labels.call_records import join_llm_calls
    from assets.labels.label_candidates import read_priors
    from assets.labels.label_scores import label_score_rows
    from assets.labels.label_tasks import (
        label_requests,
        label_rows,
        prior_requests_of,
        requests_of,
    )
    from assets.labels.score_questions import score_requests
    from assets.labels.score_summary import score_summary
    from assets.labels.unasked import replies_of, to_send
    from assets.shared.feature_limit import feature_limit

    spec = run.fit()
    config = spec.study.labels
    limit = feature_limit("labels", config, spec.fit.is_control)
    contexts = run.lake.read(CONTEXTS, spec.partition)
    feature_ids = feature_ids_of(run.fitted_row(spec))
    coefficients = run.lake.read(
        COEFFICIENTS, spec.partition, columns=("feature_id", "coefficient")
    )

    tasks = label_requests(
        contexts,
        run.lake.read(VOCAB_PROJECTION, spec.partition),
        config,
        features=strongest_features(coefficients, limit.n),
        llm=spec.study.llm,
    )
    requests = requests_of(tasks)
    with Progress(run.log, "labels", len(requests), "calls") as progress:
        label_replies = run.chat_model("llm", progress.reach).complete(requests, purpose="labels")
    prior_requests = prior_requests_of(tasks, label_replies, config)
    with Progress(run.log, "labels without evidence", len(prior_requests), "calls") as progress:
        prior_replies = run.chat_model("llm", progress.reach).complete(
            prior_requests, purpose="label_priors"
        )
    labels = label_rows(
        tasks,
        label_replies,
        contexts,
        config,
        all_features=feature_ids,
        beyond=limit.beyond,
        priors=read_priors(prior_replies),
    )
    judge = spec.study.llm_of("judge_llm")
    score_tasks = score_requests(labels, contexts, config, llm=judge)
    questions = to_send(score_tasks)
    with Progress(run.log, "label scores", len(questions), "calls") as progress:
        score_replies = run.chat_model("judge_llm", progress.reach).complete(
            questions, purpose="label_scores"
        )
    scores = label_score_rows(
        score_tasks,
        replies_of(score_tasks, score_replies),
        labels,
        config,
        llm=judge,
        skipped=skipped_contexts(labels, contexts, config, llm=judge),
    )
    yield from run.write(
        {LABELS: labels, LABEL_SCORES: scores},
        side_frames={
            LLM_CALLS: join_llm_calls(
                {
                    "labels": label_replies,
                    "label_priors": prior_replies,
                    "label_scores": score_replies,
                }
            )
        },
        metadata={
            LABELS.name: cost_summary([*label_replies, *prior_replies]),
            LABEL_SCORES.name: {
                **cost_summary(score_replies),
                **score_summary(scores),
            },
        },
    )
