"""The evidence assets: `contexts` (from coefficients) and `vocab_projection` (from the model)."""

from collections.abc import Iterator

import dagster as dg

from assets.activations.tables import TOKENS
from assets.evidence.tables import CONTEXTS, VOCAB_PROJECTION
from assets.factorization.tables import COEFFICIENTS, DICTIONARY, FACTORIZATIONS
from assets.partitions import SITE_FITS, site_of_fit
from assets.shared.progress import Progress
from assets.stage_run import StageRun, specs_of_checks, table_specs
from resources.lake import LakeResource
from resources.model_resource import SubjectModelResource
from resources.study import StudiesResource


@dg.multi_asset(
    name="contexts",
    specs=table_specs(
        [CONTEXTS],
        deps=[COEFFICIENTS.name, dg.AssetDep(TOKENS.name, partition_mapping=site_of_fit())],
    ),
    check_specs=specs_of_checks([CONTEXTS]),
    partitions_def=SITE_FITS,
)
def contexts_asset(
    context: dg.AssetExecutionContext, lake: LakeResource, studies: StudiesResource
) -> Iterator[dg.MaterializeResult]:
    from assets.evidence.contexts import build_contexts

    run = StageRun(context, lake, studies)
    spec = run.fit()
    frame = build_contexts(
        run.lake.read(COEFFICIENTS, spec.partition, columns=("row", "feature_id", "coefficient")),
        run.lake.read(TOKENS, {"site": spec.site.key}),
        spec.study.evidence,
    )
    yield from run.write({CONTEXTS: frame}, spec.partition, configs=[spec.study.evidence])


@dg.multi_asset(
    name="vocab_projection",
    specs=table_specs([VOCAB_PROJECTION], deps=[DICTIONARY.name]),
    check_specs=specs_of_checks([VOCAB_PROJECTION]),
    partitions_def=SITE_FITS,
    pool="subject_model",
)
def vocab_projection_asset(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    studies: StudiesResource,
    subject_models: SubjectModelResource,
) -> Iterator[dg.MaterializeResult]:
    from assets.evidence.vocab_projection import project_vocabulary
    from assets.factorization.frames import dictionary_matrix

    run = StageRun(context, lake, studies)
    spec = run.fit()
    subject = subject_models.load(spec.site.model)
    fitted = run.lake.read(FACTORIZATIONS, spec.partition).row(0, named=True)
    dictionary = dictionary_matrix(
        run.lake.read(DICTIONARY, spec.partition), fitted["n_features"], fitted["width"]
    )
    with Progress(run.log, "vocabulary projection", len(dictionary), "features") as progress:
        frame = project_vocabulary(
            subject.model,
            subject.tokenizer,
            spec.site.activation_site,
            dictionary.to(subject.device),
            n_vocab=spec.study.evidence.n_vocab,
            on_progress=progress.reach,
        )
    yield from run.write({VOCAB_PROJECTION: frame}, spec.partition, configs=[spec.study.evidence])


evidence_assets = [contexts_asset, vocab_projection_asset]
