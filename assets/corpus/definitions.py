"""The corpus asset: `documents` of one study."""

from collections.abc import Iterator

import dagster as dg

from assets.asset_specs import specs_of_checks, table_specs
from assets.corpus.documents import documents_frame
from assets.corpus.read import read_corpus
from assets.corpus.sources import corpus_fingerprint
from assets.corpus.tables import DOCUMENTS, TABLES
from assets.partitions import STUDIES
from assets.recipe import Recipe
from assets.stage_run import StageRun
from resources.lake import LakeResource
from resources.study_files import StudiesResource

RECIPE = Recipe(
    "corpus",
    stage="corpus",
    tables=TABLES,
    settings=lambda study: {"corpus": study.corpus},
    observed=lambda study, folder: {"corpus_files": corpus_fingerprint(study.corpus, folder)},
)


@dg.multi_asset(
    name=RECIPE.name,
    specs=table_specs(RECIPE),
    check_specs=specs_of_checks(RECIPE),
    partitions_def=STUDIES,
)
def corpus_assets(
    context: dg.AssetExecutionContext, lake: LakeResource, studies: StudiesResource
) -> Iterator[dg.MaterializeResult]:
    yield from StageRun(context, RECIPE, lake, studies).materialize(_read_documents)


def _read_documents(run: StageRun) -> Iterator[dg.MaterializeResult]:
    frame = documents_frame(read_corpus(run.study().corpus, run.study_folder))
    accepted = frame.filter(status="ok").drop_nulls("concept")
    concepts = accepted.group_by("concept").len().sort("concept")
    yield from run.write(
        {DOCUMENTS: frame},
        metadata={
            DOCUMENTS.name: {
                "n_concepts": len(concepts),
                "documents_per_concept": dict(concepts.iter_rows()),
            }
        },
    )
