"""The catalogue assets: `features`, one row a feature, joined from every stage's tables, and
`catalogue_changes`, what is new in them.
"""

from collections.abc import Iterator

import dagster as dg

from assets.ablation.tables import ABLATION_EFFECTS
from assets.asset_specs import specs_of_checks, table_specs
from assets.catalogue.changes import partition_changes
from assets.catalogue.features_query import FEATURES_QUERY
from assets.catalogue.tables import CATALOGUE_CHANGES, FEATURES, TABLES
from assets.common_inputs import CONCEPTS
from assets.corpus.tables import DOCUMENTS
from assets.detection.tables import CONCEPT_DETECTION
from assets.evidence.tables import CONTEXTS, VOCAB_PROJECTION
from assets.factorization.tables import COEFFICIENTS, DICTIONARY, FACTORIZATIONS
from assets.faithfulness.tables import FEATURE_FAITHFULNESS
from assets.labels.tables import LABEL_SCORES, LABELS
from assets.partitions import SITE_FITS
from assets.recipe import Input, Recipe
from assets.stage_run import StageRun
from assets.steering.feature_tables import JUDGE_FREE_SCORES, STEERING_SUMMARIES
from assets.steering.tables import CALIBRATIONS, STEERING_SCORES
from resources.catalogue_changes import features_as_written
from resources.lake import LakeResource
from resources.study_files import StudiesResource

SOURCES = (
    FACTORIZATIONS,
    DICTIONARY,
    COEFFICIENTS,
    FEATURE_FAITHFULNESS,
    CONTEXTS,
    VOCAB_PROJECTION,
    LABELS,
    LABEL_SCORES,
    CONCEPT_DETECTION,
    CALIBRATIONS,
    STEERING_SCORES,
    STEERING_SUMMARIES,
    JUDGE_FREE_SCORES,
    ABLATION_EFFECTS,
)

RECIPE = Recipe(
    "catalogue",
    stage="catalogue",
    tables=TABLES,
    inputs=(*(Input(table) for table in SOURCES), CONCEPTS),
    settings=lambda spec: {
        "method": spec.fit.method,
        "is_control": spec.fit.is_control,
        "model": spec.site.model_name,
        "judged_label": spec.study.steering.judged_labels[0],
    },
)


@dg.multi_asset(
    name=RECIPE.name,
    specs=table_specs(RECIPE),
    check_specs=specs_of_checks(RECIPE),
    partitions_def=SITE_FITS,
)
def catalogue_assets(
    context: dg.AssetExecutionContext, lake: LakeResource, studies: StudiesResource
) -> Iterator[dg.MaterializeResult]:
    yield from StageRun(context, RECIPE, lake, studies).materialize(_join)


def _join(run: StageRun) -> Iterator[dg.MaterializeResult]:
    spec = run.fit()
    run.lake.ensure_tables([DOCUMENTS, *SOURCES])
    frame = run.lake.query(
        FEATURES_QUERY,
        {
            **spec.partition,
            "study": spec.study.name,
            "model": spec.site.model_name,
            "layer": spec.site.layer,
            "site_kind": spec.site.kind,
            "method": spec.fit.method,
            "is_control": spec.fit.is_control,
            "judged_label": spec.study.steering.judged_labels[0],
        },
    )
    best = frame.filter(frame["steering_score"].is_not_null()).sort(
        "steering_score", descending=True
    )
    changes = partition_changes(
        next(features_as_written(run.lake, spec.partition), FEATURES.empty()),
        FEATURES.conform(frame, spec.partition),
        run.lake.snapshot_of(FEATURES, spec.partition),
        run.lake.read(CATALOGUE_CHANGES, spec.partition),
    )
    yield from run.write(
        {FEATURES: frame, CATALOGUE_CHANGES: changes},
        metadata={
            FEATURES.name: {
                "best_features": dg.MetadataValue.md(
                    "\n".join(
                        [
                            "| feature | label | tokens | AUROC | steering |",
                            "|---|---|---|---|---|",
                            *(
                                f"| {row['feature_id']} | {row['label'] or '–'} "
                                f"| {', '.join((row['top_tokens'] or [])[:4])} "
                                f"| {row['concept_auroc'] or float('nan'):.2f} "
                                f"| {row['steering_score']:.2f} |"
                                for row in best.head(10).to_dicts()
                            ),
                        ]
                    )
                )
            },
            CATALOGUE_CHANGES.name: {
                f"n_{change}": count
                for change, count in changes["change"].value_counts(sort=True).iter_rows()
            },
        },
    )
