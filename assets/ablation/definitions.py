"""The ablation assets of one fit: runs of documents, and the effects made of them."""

from collections.abc import Iterator
from dataclasses import asdict

import dagster as dg

from assets.ablation.tables import ABLATION_EFFECTS, ABLATION_RUNS, TABLES
from assets.activations.tables import TOKENS
from assets.asset_specs import specs_of_checks, table_specs
from assets.common_inputs import (
    FIT_COEFFICIENTS,
    FITTED,
    SITE_ACTIVATIONS,
    SITE_TOKENS,
    settings_in_effect,
)
from assets.corpus.tables import DOCUMENTS
from assets.evidence.tables import VOCAB_PROJECTION
from assets.factorization.tables import COEFFICIENTS
from assets.fingerprints import code_version
from assets.partitions import SITE_FITS
from assets.recipe import Input, Recipe
from assets.shared.plots import histogram, markdown_plot
from assets.shared.progress import Progress
from assets.stage_run import StageRun
from resources.lake import LakeResource
from resources.model_resource import SubjectModelResource
from resources.study_files import StudiesResource

# Runs that are reused one by one are made by this and what it imports.
RUNS_MODULE = "assets.ablation.runs"

RECIPE = Recipe(
    "ablation",
    stage="ablation",
    tables=TABLES,
    inputs=(
        *FITTED,
        FIT_COEFFICIENTS,
        SITE_TOKENS,
        # Detection's cosines choose the concept.
        SITE_ACTIVATIONS,
        Input(DOCUMENTS, "study", columns=("document_id", "minhash", "status", "concept")),
        Input(VOCAB_PROJECTION, columns=("feature_id", "sign", "rank_in_sign", "token_id")),
    ),
    settings=lambda spec: {
        # Batches change values by rounding only.
        "ablation": settings_in_effect(spec.study.ablation, spec, "batch_tokens"),
        "evidence": spec.study.evidence.model_dump(include={"firing_share"}),
        # What chooses a feature's concept.
        "detection": spec.study.detection.model_dump(include={"seed", "documents_without_concept"}),
    },
    uses_model=True,
)


@dg.multi_asset(
    name=RECIPE.name,
    specs=table_specs(RECIPE),
    check_specs=specs_of_checks(RECIPE),
    partitions_def=SITE_FITS,
    pool="subject_model",
)
def ablation_assets(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    studies: StudiesResource,
    subject_models: SubjectModelResource,
) -> Iterator[dg.MaterializeResult]:
    run = StageRun(context, RECIPE, lake, studies, subject_models)
    yield from run.materialize(_ablate)


def _ablate(run: StageRun) -> Iterator[dg.MaterializeResult]:
    import polars as pl

    from assets.ablation.concept_documents import detected_concepts
    from assets.ablation.measure import measure_ablations
    from assets.activations.tokenization import special_prefix
    from assets.detection.site_scores import corpus_scores
    from assets.factorization.strength_order import strongest_features
    from assets.shared.feature_limit import feature_limit

    spec = run.fit()
    config = spec.study.ablation
    subject = run.subject()
    fitted = run.fitted(spec)
    coefficients = run.lake.read(
        COEFFICIENTS, spec.partition, columns=("row", "feature_id", "coefficient")
    )
    tokens = run.lake.read(
        TOKENS,
        {"site": spec.site.key},
        columns=("row", "document_id", "position", "token_id", "is_massive"),
    )
    promoted = (
        run.lake.read(VOCAB_PROJECTION, spec.partition)
        .filter(sign="+")
        .sort("feature_id", "rank_in_sign")
        .group_by("feature_id", maintain_order=True)
        .agg("token_id")
    )
    documents = run.lake.read(
        DOCUMENTS,
        {"study": spec.study.name, "status": "ok"},
        columns=("document_id", "minhash", "concept"),
    )
    concept_of = {}
    if config.n_documents_concept and documents["concept"].drop_nulls().len():
        scores = corpus_scores(
            run.activations(spec.site),
            tokens,
            documents["document_id"].to_list(),
            fitted.dictionary,
        )
        concept_of = detected_concepts(scores, documents, fitted.feature_ids, spec.study.detection)
    limit = feature_limit("ablation", config, spec.fit.is_control)
    with Progress(run.log, "ablation", 0, "runs of a document") as progress:
        measured = measure_ablations(
            subject.model,
            spec.site.activation_site,
            feature_ids=fitted.feature_ids,
            dictionary=fitted.dictionary,
            measured_ids=strongest_features(coefficients, limit.n),
            coefficients=coefficients,
            tokens=tokens,
            special_prefix=special_prefix(subject.tokenizer),
            promoted=dict(promoted.iter_rows()),
            config=config,
            firing_share=spec.study.evidence.firing_share,
            study_documents=documents,
            concept_of=concept_of,
            detection=spec.study.detection,
            beyond=limit.beyond,
            made_with=(
                code_version("ablation", (RUNS_MODULE,)),
                subject.revision,
                subject.dtype,
            ),
            previous=run.lake.read(ABLATION_RUNS, spec.partition),
            on_progress=progress.reach,
        )
    ok = measured.effects.filter(status="ok")
    points = [
        (name, ok.filter(is_null=is_null).drop_nulls(["delta_on", "delta_off"]))
        for is_null, name in ((True, "nulls"), (False, "features"))
    ]
    repairs = ok.filter(~pl.col("is_null"))["self_repair"].drop_nulls().to_list()
    selectivity = (
        ok.group_by(
            measure=pl.concat_str(
                "ablation", pl.when("is_null").then(pl.lit("_of_nulls")).otherwise(pl.lit(""))
            )
        )
        .agg(pl.col("selectivity", "concept_selectivity").median())
        .sort("measure")
    )
    yield from run.write(
        {ABLATION_RUNS: measured.runs, ABLATION_EFFECTS: measured.effects},
        metadata={
            ABLATION_RUNS.name: {
                "rows_reused": measured.rows_reused,
                "rows_computed": measured.rows_computed,
                **asdict(measured.spent),
            },
            ABLATION_EFFECTS.name: {
                **{
                    f"median_{name}": dict(
                        selectivity.select("measure", name).drop_nulls().iter_rows()
                    )
                    for name in ("selectivity", "concept_selectivity")
                },
                "on_and_off_target": dg.MetadataValue.md(
                    markdown_plot(
                        lambda axes: (
                            [
                                axes.plot(
                                    frame["delta_off"],
                                    frame["delta_on"],
                                    ".",
                                    label=name,
                                    alpha=0.6,
                                )
                                for name, frame in points
                            ],
                            axes.axline((0, 0), slope=1, lw=0.5, color="k"),
                            axes.legend(),
                        ),
                        "Change of cross-entropy without the feature",
                        "off target [nats]",
                        "on target [nats]",
                    )
                ),
                "self_repair": dg.MetadataValue.md(
                    histogram(repairs, "Self-repair by later layers", "1 - total / direct")
                ),
            },
        },
    )
