"""The comparison assets of one site, made after all its fits: `method_comparison`, `paired_tests`
and `feature_significance`.
"""

from collections.abc import Iterator

import dagster as dg

from assets.ablation.tables import ABLATION_EFFECTS
from assets.asset_specs import specs_of_checks, table_specs
from assets.catalogue.tables import FEATURES
from assets.comparison.metrics import FEATURE_METRIC_NAMES
from assets.comparison.tables import (
    FEATURE_SIGNIFICANCE,
    METHOD_COMPARISON,
    PAIRED_TESTS,
    TABLES,
)
from assets.detection.tables import CONCEPT_DETECTION
from assets.factorization.tables import FACTORIZATIONS
from assets.faithfulness.tables import FAITHFULNESS
from assets.labels.tables import LABEL_SCORES, LABELS, LLM_CALLS
from assets.partitions import SITES
from assets.recipe import Input, Recipe
from assets.stage_run import StageRun
from assets.steering.feature_tables import JUDGE_FREE_SCORES, STEERING_SUMMARIES
from assets.steering.tables import STEERING_SCORES
from resources.lake import LakeResource
from resources.study import SiteFits
from resources.study_files import StudiesResource

# What tells which features a metric was attempted for; of label_scores also the shuffled scores.
_OF_LABEL_SCORES = ("feature_id", "kind", "method", "negatives", "is_shuffled", "auroc")
ATTEMPTS = (
    Input(CONCEPT_DETECTION, of="fits", columns=("feature_id", "source", "label_kind", "status")),
    Input(LABELS, of="fits", columns=("feature_id", "kind", "status")),
    Input(LABEL_SCORES, of="fits", columns=_OF_LABEL_SCORES),
    Input(STEERING_SCORES, of="fits", columns=("feature_id", "sign", "label_kind", "status")),
    Input(
        ABLATION_EFFECTS,
        of="fits",
        columns=("feature_id", "ablation", "is_null", "status", "concept"),
    ),
    Input(
        JUDGE_FREE_SCORES,
        of="fits",
        columns=(
            *("feature_id", "sign", "label", "label_kind"),
            *("target_kl_nats", "label_logprob_gain"),
        ),
    ),
)

RECIPE = Recipe(
    "comparison",
    stage="comparison",
    tables=TABLES,
    inputs=(
        Input(
            FEATURES,
            of="fits",
            columns=("feature_id", "concept", "energy_share", *FEATURE_METRIC_NAMES),
        ),
        Input(FACTORIZATIONS, of="fits", columns=("status", "reason", "explained_variance", "l0")),
        Input(
            FAITHFULNESS,
            of="fits",
            columns=("replacement", "recovered", "recovered_low", "recovered_high", "reason"),
        ),
        *ATTEMPTS,
        # The first judged label's are in `features`.
        Input(
            STEERING_SUMMARIES,
            of="fits",
            columns=("feature_id", "label_kind", "sign", "pooling", "score", "gain"),
            when=lambda spec: len(spec.study.steering.judged_labels) > 1,
        ),
    ),
    settings=lambda spec: {
        "comparison": spec.study.comparison.model_dump(),
        "fits": {one.fit.key: one.fit.method for one in spec.fits()},
        "judged_labels": spec.study.steering.judged_labels,
    },
)


@dg.multi_asset(
    name=RECIPE.name,
    specs=table_specs(RECIPE),
    check_specs=specs_of_checks(RECIPE),
    partitions_def=SITES,
)
def comparison_assets(
    context: dg.AssetExecutionContext, lake: LakeResource, studies: StudiesResource
) -> Iterator[dg.MaterializeResult]:
    yield from StageRun(context, RECIPE, lake, studies).materialize(_compare)


def _compare(run: StageRun) -> Iterator[dg.MaterializeResult]:
    import polars as pl

    from assets.comparison import overview
    from assets.comparison.attempts_query import ATTEMPTS_QUERY
    from assets.comparison.costs_query import COSTS_QUERY
    from assets.comparison.feature_significance import significance_rows
    from assets.comparison.fits import FEATURE_COLUMNS, compared_fits
    from assets.comparison.further_labels import feature_metrics, suffixes, with_further_labels
    from assets.comparison.method_means import method_rows
    from assets.comparison.paired_tests import paired_test_rows

    assert isinstance(run.spec, SiteFits)
    config = run.spec.study.comparison
    of_site = {"site": run.spec.site.key}
    factorizations = run.lake.read(
        FACTORIZATIONS, of_site, columns=("fit", "status", "reason", "explained_variance", "l0")
    )
    faithfulness = run.lake.read(
        FAITHFULNESS,
        {**of_site, "replacement": "reconstruction"},
        columns=("fit", "recovered", "recovered_low", "recovered_high", "reason"),
    )
    run.lake.ensure_tables(
        [
            CONCEPT_DETECTION,
            LABELS,
            LABEL_SCORES,
            LLM_CALLS,
            STEERING_SCORES,
            ABLATION_EFFECTS,
            STEERING_SUMMARIES,
            JUDGE_FREE_SCORES,
        ]
    )
    costs = run.lake.query(COSTS_QUERY, of_site)
    judged = run.spec.study.steering.judged_labels
    attempts = run.lake.query(
        ATTEMPTS_QUERY, {**of_site, "judged_labels": list(judged), "suffixes": suffixes(judged)}
    )
    features = with_further_labels(
        run.lake.read(FEATURES, of_site, columns=FEATURE_COLUMNS),
        run.lake.read(
            STEERING_SUMMARIES,
            of_site,
            columns=("fit", "feature_id", "label_kind", "sign", "pooling", "score", "gain"),
        ),
        run.lake.read(
            JUDGE_FREE_SCORES,
            of_site,
            columns=(
                "fit",
                "feature_id",
                "label_kind",
                "sign",
                "target_kl_nats",
                "label_logprob_gain",
            ),
        ),
        judged,
    )
    fits = compared_fits(
        {one.fit.key: (one.fit.method, one.fit.is_control) for one in run.site_fits()},
        features,
        factorizations,
    )
    metrics = feature_metrics(judged)
    shuffled = run.lake.read(
        LABEL_SCORES,
        {**of_site, "kind": "input", "negatives": "random", "is_shuffled": True},
        columns=("fit", "feature_id", "method", "auroc"),
    ).filter(pl.col("method").str.starts_with("detection"))
    compared = method_rows(fits, factorizations, faithfulness, costs, attempts, config, metrics)
    tests = paired_test_rows(fits, shuffled, config, metrics)
    significance = significance_rows(fits, config, metrics)
    plot = overview.method_plot(compared)
    yield from run.write(
        {METHOD_COMPARISON: compared, PAIRED_TESTS: tests, FEATURE_SIGNIFICANCE: significance},
        metadata={
            METHOD_COMPARISON.name: {
                "fits": dg.MetadataValue.md(overview.method_table(compared)),
                **({} if plot is None else {"metrics": dg.MetadataValue.md(plot)}),
            },
            PAIRED_TESTS.name: {"tests": dg.MetadataValue.md(overview.tests_table(tests))},
            FEATURE_SIGNIFICANCE.name: {
                "features": dg.MetadataValue.md(overview.significance_table(significance))
            },
        },
    )
