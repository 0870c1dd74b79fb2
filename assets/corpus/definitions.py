"""The corpus asset: `documents` of one study."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from assets.corpus.documents import documents_frame
from assets.corpus.read import read_corpus
from assets.corpus.sources import corpus_fingerprint
from assets.corpus.tables import DOCUMENTS, TABLES
from assets.partitions import STUDIES
from assets.stage_run import StageRun, specs_of_checks, table_specs
from resources.lake import LakeResource
from resources.study import StudiesResource


@dg.multi_asset(
    name="corpus",
    specs=table_specs(TABLES),
    check_specs=specs_of_checks(TABLES),
    partitions_def=STUDIES,
)
def corpus_assets(
    context: dg.AssetExecutionContext, lake: LakeResource, studies: StudiesResource
) -> Iterator[dg.MaterializeResult]:
    run = StageRun(context, lake, studies)
    study = run.study()
    folder = Path(studies.folder)
    frame = documents_frame(read_corpus(study.corpus, folder))
    accepted = frame.filter(status="ok").drop_nulls("concept")
    concepts = accepted.group_by("concept").len().sort("concept")
    yield from run.write(
        {DOCUMENTS: frame},
        {"study": study.name},
        configs=[study.corpus, corpus_fingerprint(study.corpus, folder)],
        metadata={
            DOCUMENTS.name: {
                "n_concepts": len(concepts),
                "documents_per_concept": dict(concepts.iter_rows()),
            }
        },
    )
