"""The detection assets of one fit: `probe_sentences` and `concept_detection`."""

from collections.abc import Iterator

import dagster as dg

from assets.activations.tables import TOKENS
from assets.asset_specs import specs_of_checks, table_specs
from assets.common_inputs import (
    CONCEPTS,
    FIT_COEFFICIENTS,
    FITTED,
    SITE_ACTIVATIONS,
    settings_in_effect,
)
from assets.corpus.tables import DOCUMENTS
from assets.detection import prompts
from assets.detection.tables import CONCEPT_DETECTION, PROBE_SENTENCES, TABLES
from assets.factorization.tables import COEFFICIENTS
from assets.fingerprints import code_version
from assets.labels.chosen_labels import chosen_kind
from assets.labels.prompt import prompt_versions
from assets.labels.tables import LABELS, LLM_CALLS
from assets.partitions import SITE_FITS
from assets.recipe import Input, Recipe
from assets.shared.plots import histogram
from assets.shared.progress import Progress
from assets.stage_run import StageRun
from resources.chat_resource import ChatResource
from resources.lake import LakeResource
from resources.model_resource import SubjectModelResource
from resources.study_files import StudiesResource

RECIPE = Recipe(
    "detection",
    stage="detection",
    tables=TABLES,
    inputs=(
        *FITTED,
        FIT_COEFFICIENTS,
        Input(LABELS, columns=("feature_id", "kind", "label", "status", "reason")),
        SITE_ACTIVATIONS,
        Input(TOKENS, "site", columns=("row", "document_id", "row_norm", "is_massive")),
        CONCEPTS,
    ),
    settings=lambda spec: {
        "detection": settings_in_effect(spec.study.detection, spec),
        "labels": {"probed_kind": chosen_kind(spec.study.labels.kinds)},
        "activations": spec.study.activations.model_dump(
            include={"max_tokens_per_document", "massive_norm_ratio"}
        ),
    },
    prompts=lambda spec: prompt_versions(prompts),
    uses_model=True,
    llms=("llm",),
)


@dg.multi_asset(
    name=RECIPE.name,
    specs=table_specs(RECIPE),
    check_specs=specs_of_checks(RECIPE),
    partitions_def=SITE_FITS,
    pool="subject_model",
)
def detection_assets(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    studies: StudiesResource,
    subject_models: SubjectModelResource,
    chat: ChatResource,
) -> Iterator[dg.MaterializeResult]:
    run = StageRun(context, RECIPE, lake, studies, subject_models, chat)
    yield from run.materialize(_detect)


def _detect(run: StageRun) -> Iterator[dg.MaterializeResult]:
    import numpy as np
    import polars as pl

    from assets.detection.corpus_concepts import corpus_concept_rows
    from assets.detection.probe_scores import score_probes
    from assets.detection.probe_sentences import (
        features_not_probed,
        generated_concept_rows,
        labels_to_probe,
        probe_requests,
        probe_sentence_rows,
    )
    from assets.detection.site_scores import (
        corpus_scores,
        document_token_counts,
        sentence_scores,
        sentence_token_counts,
    )
    from assets.factorization.strength_order import strongest_features
    from assets.labels.call_costs import cost_summary
    from assets.labels.call_records import llm_calls_frame
    from assets.labels.chosen_labels import chosen_labels
    from assets.shared.covered_mean import covered_mean
    from assets.shared.false_discovery import with_q_values
    from assets.shared.feature_limit import feature_limit

    spec = run.fit()
    config = spec.study.detection
    site = {"site": spec.site.key}
    subject = run.subject()
    fitted = run.fitted(spec)

    label_kind = chosen_kind(spec.study.labels.kinds)
    chosen = chosen_labels(run.lake.read(LABELS, spec.partition), label_kind)
    limit = feature_limit("detection", config, spec.fit.is_control)
    coefficients = run.lake.read(
        COEFFICIENTS, spec.partition, columns=("feature_id", "coefficient")
    )
    strongest = strongest_features(coefficients, None)
    labels = labels_to_probe(chosen, strongest, limit.n)
    not_probed = features_not_probed(chosen, strongest, limit.n, limit.beyond)
    tasks = probe_requests(labels, config)
    with Progress(run.log, "probe sentences", len(tasks), "calls") as progress:
        replies = run.chat_model("llm", progress.reach).complete(
            [task.request for task in tasks], purpose="probe_sentences"
        )
    max_tokens = spec.study.activations.max_tokens_per_document
    probes = probe_sentence_rows(
        tasks,
        replies,
        config,
        label_kind=label_kind,
        not_probed=not_probed,
        count_tokens=lambda texts: sentence_token_counts(subject.tokenizer, texts, max_tokens),
    )
    tokens = run.lake.read(TOKENS, site, columns=("row", "document_id", "row_norm", "is_massive"))
    median_norm = float(np.median(tokens["row_norm"].to_numpy()))
    massive_norm = spec.study.activations.massive_norm_ratio * median_norm
    scored = score_probes(
        probes,
        run.lake.read(PROBE_SENTENCES, spec.partition),
        fitted.dictionary,
        fitted.feature_ids,
        lambda sentences: sentence_scores(
            subject.model,
            subject.tokenizer,
            spec.site.activation_site,
            sentences,
            fitted.dictionary,
            max_tokens=max_tokens,
            massive_norm=massive_norm,
        ),
        made_with=(
            code_version("detection"),
            subject.revision,
            subject.dtype,
            spec.site.activation_site.key,
            max_tokens,
        ),
        massive_norm=massive_norm,
    )

    documents = run.lake.read(
        DOCUMENTS,
        {"study": spec.study.name, "status": "ok"},
        columns=("document_id", "minhash", "concept"),
    )
    document_ids = documents["document_id"].to_list()
    of_corpus = corpus_concept_rows(
        corpus_scores(run.activations(spec.site), tokens, document_ids, fitted.dictionary),
        documents["minhash"].to_list(),
        documents["concept"].to_list(),
        config,
        feature_ids=fitted.feature_ids,
        n_tokens=document_token_counts(tokens, document_ids),
    )
    # Of the whole fit: a feature's q-value depends on the p-values of all others.
    detected = with_q_values(
        pl.concat([generated_concept_rows(scored.rows, labels, config), of_corpus]),
        ["source"],
        p="p_value_texts",
        q="q_value_texts",
    )
    aurocs = of_corpus["auroc"].drop_nulls().to_list()
    yield from run.write(
        {PROBE_SENTENCES: scored.rows, CONCEPT_DETECTION: detected},
        side_frames={LLM_CALLS: llm_calls_frame(replies, purpose="probe_sentences")},
        metadata={
            PROBE_SENTENCES.name: {
                **cost_summary(replies),
                "rows_reused": scored.rows_reused,
                "rows_computed": scored.rows_computed,
                "forward_tokens": scored.forward_tokens,
            },
            CONCEPT_DETECTION.name: {
                **covered_mean(of_corpus, "auroc", "mean_concept_auroc"),
                "concept_auroc": dg.MetadataValue.md(
                    histogram(aurocs, "Concept AUROC of the features", "AUROC")
                ),
            },
        },
    )
