"""The faithfulness assets of one fit: `faithfulness` and `feature_faithfulness`."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import dagster as dg

from assets.activations.tables import TOKENS
from assets.common_inputs import (
    FIT_COEFFICIENTS,
    FITTED,
    SITE_ACTIVATIONS,
    SITE_TOKENS,
    settings_in_effect,
)
from assets.factorization.tables import COEFFICIENTS
from assets.faithfulness.tables import FAITHFULNESS, FEATURE_FAITHFULNESS, TABLES
from assets.fingerprints import code_version
from assets.partitions import SITE_FITS
from assets.recipe import Recipe
from assets.shared.plots import histogram, markdown_plot
from assets.shared.progress import Progress
from assets.stage_run import StageRun, specs_of_checks, table_specs
from resources.lake import LakeResource
from resources.model_resource import SubjectModelResource
from resources.study import StudiesResource

if TYPE_CHECKING:
    from assets.faithfulness.measure import Work

RECIPE = Recipe(
    "faithfulness",
    stage="faithfulness",
    tables=TABLES,
    inputs=(*FITTED, FIT_COEFFICIENTS, SITE_TOKENS, SITE_ACTIVATIONS),
    # Batches change values by rounding only.
    settings=lambda spec: {
        "faithfulness": settings_in_effect(spec.study.faithfulness, spec, "batch_tokens")
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
def faithfulness_assets(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    studies: StudiesResource,
    subject_models: SubjectModelResource,
) -> Iterator[dg.MaterializeResult]:
    run = StageRun(context, RECIPE, lake, studies, subject_models)
    yield from run.materialize(_measure)


def _measure(run: StageRun) -> Iterator[dg.MaterializeResult]:
    import polars as pl
    import torch

    from assets.activations.tokenization import special_prefix
    from assets.factorization.strength_order import strongest_features
    from assets.faithfulness.fit import Fit, mean_row_of
    from assets.faithfulness.measure import measure_faithfulness
    from assets.faithfulness.reuse import Previous
    from assets.faithfulness.sample import sample_documents

    spec = run.fit()
    config = spec.study.faithfulness
    site = {"site": spec.site.key}
    subject = run.subject()
    fitted = run.fitted(spec)
    coefficients = run.lake.read(
        COEFFICIENTS, spec.partition, columns=("row", "feature_id", "coefficient")
    )
    tokens = run.lake.read(
        TOKENS, site, columns=("row", "document_id", "position", "token_id", "is_massive")
    ).sort("row")
    sample = sample_documents(
        tokens, special_prefix(subject.tokenizer), config.n_documents, config.seed
    )
    in_sample = [one.document.document_id for one in sample]
    is_averaged = tokens.select(~pl.col("is_massive") & pl.col("document_id").is_in(in_sample))
    offset = fitted.row["offset_vector"]
    fit = Fit(
        feature_ids=fitted.feature_ids,
        dictionary=fitted.dictionary,
        coefficients=coefficients,
        offset=None if offset is None else torch.tensor(offset),
        mean_row=mean_row_of(run.activations(spec.site), is_averaged.to_series().to_list()),
    )
    limit = config.max_features_controls if spec.fit.is_control else config.max_features
    with Progress(run.log, "faithfulness", len(sample), "runs of a document") as progress:
        measured = measure_faithfulness(
            subject.model,
            spec.site.activation_site,
            sample,
            fit,
            strongest_features(coefficients, limit),
            config,
            limit=limit,
            previous=Previous(
                run.lake.read(FAITHFULNESS, spec.partition),
                run.lake.read(FEATURE_FAITHFULNESS, spec.partition),
                made_with=(code_version("faithfulness"), subject.revision, subject.dtype),
            ),
            on_progress=progress.reach,
        )
    shares = measured.replacements
    recovered = dict(shares.select("replacement", "recovered").drop_nulls().iter_rows())
    deltas = measured.features["delta_cross_entropy"].drop_nulls().to_list()
    yield from run.write(
        {FAITHFULNESS: shares, FEATURE_FAITHFULNESS: measured.features},
        metadata={
            FAITHFULNESS.name: {
                **{f"recovered_{name}": share for name, share in recovered.items()},
                **_counts(measured.replacements_work),
                "recovered_by_replacement": dg.MetadataValue.md(
                    markdown_plot(
                        lambda axes: (
                            axes.barh(list(recovered), list(recovered.values())),
                            axes.axvline(1.0, lw=0.5, color="k"),
                        ),
                        "Cross-entropy recovered",
                        "share",
                        "",
                    )
                ),
            },
            FEATURE_FAITHFULNESS.name: {
                **_counts(measured.features_work),
                "ablation_effects": dg.MetadataValue.md(
                    histogram(
                        deltas, "Change of cross-entropy without the feature", "nats", log=True
                    )
                ),
            },
        },
    )


def _counts(work: "Work") -> dict[str, int]:
    return {
        "rows_reused": work.rows_reused,
        "rows_computed": work.rows_computed,
        **asdict(work.spent),
    }
