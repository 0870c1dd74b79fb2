"""The evidence assets: `contexts` (from coefficients); `vocab_projection` and `bilinear_view` (from
the model's weights).
"""

from collections.abc import Iterator

import dagster as dg

from assets.activations.tables import TOKENS
from assets.asset_specs import specs_of_checks, table_specs
from assets.common_inputs import FIT_COEFFICIENTS, FITTED, FITTED_DICTIONARY, SITE_TOKENS
from assets.evidence.tables import BILINEAR_VIEW, CONTEXTS, VOCAB_PROJECTION
from assets.factorization.tables import COEFFICIENTS, DICTIONARY
from assets.partitions import SITE_FITS
from assets.recipe import Recipe
from assets.shared.plots import histogram
from assets.shared.progress import Progress
from assets.stage_run import StageRun
from resources.lake import LakeResource
from resources.model_resource import SubjectModelResource
from resources.study_files import StudiesResource

CONTEXTS_RECIPE = Recipe(
    "contexts",
    stage="evidence",
    tables=(CONTEXTS,),
    inputs=(*FITTED, FIT_COEFFICIENTS, SITE_TOKENS),
    settings=lambda spec: {
        "evidence": spec.study.evidence.model_dump(exclude={"n_vocab", "bilinear"})
    },
    modules=("assets.evidence.contexts", "assets.evidence.similar_features"),
)
VOCAB_RECIPE = Recipe(
    "vocab_projection",
    stage="evidence",
    tables=(VOCAB_PROJECTION,),
    inputs=FITTED_DICTIONARY,
    settings=lambda spec: {"evidence": {"n_vocab": spec.study.evidence.n_vocab}},
    modules=("assets.evidence.vocab_projection",),
    uses_model=True,
)
BILINEAR_RECIPE = Recipe(
    "bilinear_view",
    stage="evidence",
    tables=(BILINEAR_VIEW,),
    inputs=(*FITTED, FIT_COEFFICIENTS),
    settings=lambda spec: {"evidence": {"bilinear": spec.study.evidence.bilinear}},
    modules=("assets.evidence.bilinear_view", "assets.factorization.strength_order"),
    uses_model=True,
)
RECIPES = (CONTEXTS_RECIPE, VOCAB_RECIPE, BILINEAR_RECIPE)


@dg.multi_asset(
    name=CONTEXTS_RECIPE.name,
    specs=table_specs(CONTEXTS_RECIPE),
    check_specs=specs_of_checks(CONTEXTS_RECIPE),
    partitions_def=SITE_FITS,
)
def contexts_asset(
    context: dg.AssetExecutionContext, lake: LakeResource, studies: StudiesResource
) -> Iterator[dg.MaterializeResult]:
    yield from StageRun(context, CONTEXTS_RECIPE, lake, studies).materialize(_find_contexts)


def _find_contexts(run: StageRun) -> Iterator[dg.MaterializeResult]:
    import polars as pl

    from assets.evidence.contexts import build_contexts
    from assets.evidence.similar_features import similar_features

    spec = run.fit()
    config = spec.study.evidence
    run.fitted_row(spec)
    dictionary = run.lake.read(
        DICTIONARY, spec.partition, columns=("feature_id", "neuron", "weight")
    )
    frame = build_contexts(
        run.lake.read(COEFFICIENTS, spec.partition, columns=("row", "feature_id", "coefficient")),
        run.lake.read(TOKENS, {"site": spec.site.key}),
        config,
        similar=similar_features(dictionary, config.n_similar),
    )
    of_feature = frame.group_by("feature_id").agg(pl.col("n_repeats_left_out").first())
    yield from run.write(
        {CONTEXTS: frame},
        metadata={
            CONTEXTS.name: {
                "n_repeats_left_out": int(of_feature["n_repeats_left_out"].sum()),
                "n_features_with_repeats": of_feature.filter(
                    pl.col("n_repeats_left_out") > 0
                ).height,
            }
        },
    )


@dg.multi_asset(
    name=VOCAB_RECIPE.name,
    specs=table_specs(VOCAB_RECIPE),
    check_specs=specs_of_checks(VOCAB_RECIPE),
    partitions_def=SITE_FITS,
    pool="subject_model",
)
def vocab_projection_asset(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    studies: StudiesResource,
    subject_models: SubjectModelResource,
) -> Iterator[dg.MaterializeResult]:
    run = StageRun(context, VOCAB_RECIPE, lake, studies, subject_models)
    yield from run.materialize(_project_vocabulary)


def _project_vocabulary(run: StageRun) -> Iterator[dg.MaterializeResult]:
    from assets.evidence.vocab_projection import project_vocabulary, unprojectable_because

    spec = run.fit()
    subject = run.subject()
    fitted = run.fitted(spec)
    why_empty = unprojectable_because(spec.site.activation_site)
    frame = VOCAB_PROJECTION.empty().drop(VOCAB_PROJECTION.partition_by)
    if why_empty is None:
        with Progress(
            run.log, "vocabulary projection", len(fitted.feature_ids), "features"
        ) as progress:
            frame = project_vocabulary(
                subject.model,
                subject.tokenizer,
                spec.site.activation_site,
                fitted.dictionary.to(subject.device),
                n_vocab=spec.study.evidence.n_vocab,
                feature_ids=fitted.feature_ids,
                on_progress=progress.reach,
            )
    yield from run.write(
        {VOCAB_PROJECTION: frame},
        metadata={VOCAB_PROJECTION.name: {} if why_empty is None else {"why_empty": why_empty}},
    )


@dg.multi_asset(
    name=BILINEAR_RECIPE.name,
    specs=table_specs(BILINEAR_RECIPE),
    check_specs=specs_of_checks(BILINEAR_RECIPE),
    partitions_def=SITE_FITS,
    pool="subject_model",
)
def bilinear_view_asset(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    studies: StudiesResource,
    subject_models: SubjectModelResource,
) -> Iterator[dg.MaterializeResult]:
    run = StageRun(context, BILINEAR_RECIPE, lake, studies, subject_models)
    yield from run.materialize(_view_bilinear)


def _view_bilinear(run: StageRun) -> Iterator[dg.MaterializeResult]:
    from assets.evidence.bilinear_view import unreadable_because, view_bilinear
    from assets.factorization.strength_order import strongest_features

    spec = run.fit()
    config = spec.study.evidence.bilinear
    subject = run.subject()
    fitted = run.fitted(spec)
    why_empty = unreadable_because(subject.model, spec.site.activation_site)
    frame = BILINEAR_VIEW.empty().drop(BILINEAR_VIEW.partition_by)
    if why_empty is None:
        coefficients = run.lake.read(
            COEFFICIENTS, spec.partition, columns=("feature_id", "coefficient")
        )
        viewed = strongest_features(coefficients, config.max_features)
        rows = [fitted.feature_ids.index(feature_id) for feature_id in viewed]
        with Progress(run.log, "bilinear view", len(viewed), "features") as progress:
            frame = view_bilinear(
                subject.model,
                subject.tokenizer,
                spec.site.activation_site,
                fitted.dictionary[rows],
                feature_ids=viewed,
                n_eigenvectors=config.n_eigenvectors,
                n_tokens=config.n_tokens,
                on_progress=progress.reach,
            )
    first = frame.filter(eigen_rank=0, side="+", token_rank=0)
    yield from run.write(
        {BILINEAR_VIEW: frame},
        metadata={
            BILINEAR_VIEW.name: {"why_empty": why_empty}
            if why_empty is not None
            else {
                "share_of_first_eigenvector": dg.MetadataValue.md(
                    histogram(
                        first["share_frobenius"].to_list(),
                        "Share of the form in its first eigenvector",
                        "eigenvalue² / squared Frobenius norm",
                    )
                )
            }
        },
    )


evidence_assets = [contexts_asset, vocab_projection_asset, bilinear_view_asset]
