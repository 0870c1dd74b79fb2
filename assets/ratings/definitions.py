"""The ratings assets of a study: `human_ratings` and `rating_agreement`, from its folder of sheets.

No run of a study makes them: people do, by `make ratings`, and nothing reads them further on.
"""

from collections.abc import Iterator

import dagster as dg

from assets.asset_specs import specs_of_checks, table_specs
from assets.partitions import STUDIES
from assets.ratings.folder import files_hash, ratings_folder
from assets.ratings.tables import HUMAN_RATINGS, RATING_AGREEMENT, TABLES
from assets.recipe import Recipe
from assets.stage_run import StageRun
from resources.lake import LakeResource
from resources.study_files import StudiesResource

RECIPE = Recipe(
    "ratings",
    stage="ratings",
    tables=TABLES,
    settings=lambda study: {
        "steering": study.steering.model_dump(include={"n_bootstrap", "confidence", "seed"})
    },
    observed=lambda study, folder: {"rating_files": files_hash(ratings_folder(folder, study.name))},
)


@dg.multi_asset(
    name=RECIPE.name,
    specs=table_specs(RECIPE),
    check_specs=specs_of_checks(RECIPE),
    partitions_def=STUDIES,
)
def ratings_assets(
    context: dg.AssetExecutionContext, lake: LakeResource, studies: StudiesResource
) -> Iterator[dg.MaterializeResult]:
    yield from StageRun(context, RECIPE, lake, studies).materialize(_take_in)


def _take_in(run: StageRun) -> Iterator[dg.MaterializeResult]:
    from assets.ratings.agreement import rating_agreement
    from assets.ratings.folder import read_keys, read_sheets
    from assets.ratings.frames import human_ratings_frame

    study = run.study()
    folder = ratings_folder(run.study_folder, study.name)
    keys = read_keys(folder)
    ratings = human_ratings_frame(read_sheets(folder), keys)
    agreement = rating_agreement(
        ratings,
        keys,
        n_bootstrap=study.steering.n_bootstrap,
        confidence=study.steering.confidence,
        seed=study.steering.seed,
    )
    yield from run.write(
        {HUMAN_RATINGS: ratings, RATING_AGREEMENT: agreement},
        metadata={
            HUMAN_RATINGS.name: {
                "n_sheets": ratings["sheet"].n_unique(),
                "n_items": ratings["item"].n_unique(),
                "n_raters": ratings["rater"].n_unique(),
            }
        },
    )
