"""The faithfulness assets of one fit: runs of documents, and the two tables made of them."""

from collections.abc import Iterator
from dataclasses import asdict, replace

import dagster as dg

from assets.activations.tables import TOKENS
from assets.asset_specs import specs_of_checks, table_specs
from assets.common_inputs import (
    FIT_COEFFICIENTS,
    FIT_ROW,
    SITE_ACTIVATIONS,
    SITE_TOKENS,
    settings_in_effect,
)
from assets.factorization.tables import COEFFICIENTS, DICTIONARY
from assets.faithfulness.tables import (
    FAITHFULNESS,
    FAITHFULNESS_DOCUMENTS,
    FEATURE_FAITHFULNESS,
    TABLES,
)
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
RUNS_MODULE = "assets.faithfulness.runs"

RECIPE = Recipe(
    "faithfulness",
    stage="faithfulness",
    tables=TABLES,
    inputs=(
        replace(FIT_ROW, columns=(*(FIT_ROW.columns or ()), "mean_row")),
        Input(DICTIONARY),
        FIT_COEFFICIENTS,
        SITE_TOKENS,
        SITE_ACTIVATIONS,
    ),
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
    import torch

    from assets.activations.tokenization import special_prefix
    from assets.factorization.mean_row import mean_row_of
    from assets.factorization.strength_order import strongest_features
    from assets.faithfulness.fit import Fit
    from assets.faithfulness.measure import measure_faithfulness
    from assets.faithfulness.sample import sample_documents
    from assets.shared.feature_limit import feature_limit

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
    offset, mean_row = fitted.row["offset_vector"], fitted.row["mean_row"]
    if mean_row is None:
        # A fit from before 0.3.0: over the site's tokens, which every document moves.
        pieces = (rows for _, rows in run.activations(spec.site).iter_shards(torch.float32))
        mean = mean_row_of(pieces, ~torch.tensor(tokens["is_massive"].to_list()))
    else:
        mean = torch.tensor(mean_row)
    fit = Fit(
        feature_ids=fitted.feature_ids,
        dictionary=fitted.dictionary,
        coefficients=coefficients,
        offset=None if offset is None else torch.tensor(offset),
        mean_row=mean,
    )
    limit = feature_limit("faithfulness", config, spec.fit.is_control)
    code = code_version("faithfulness", (RUNS_MODULE,))
    with Progress(run.log, "faithfulness", len(sample), "runs of a document") as progress:
        measured = measure_faithfulness(
            subject.model,
            spec.site.activation_site,
            sample,
            fit,
            strongest_features(coefficients, limit.n),
            config,
            beyond=limit.beyond,
            made_with=(code, subject.revision, subject.dtype),
            previous=run.lake.read(FAITHFULNESS_DOCUMENTS, spec.partition),
            on_progress=progress.reach,
        )
    shares = measured.replacements
    recovered = dict(shares.select("replacement", "recovered").drop_nulls().iter_rows())
    deltas = measured.features["delta_cross_entropy"].drop_nulls().to_list()
    yield from run.write(
        {
            FAITHFULNESS_DOCUMENTS: measured.documents,
            FAITHFULNESS: shares,
            FEATURE_FAITHFULNESS: measured.features,
        },
        metadata={
            FAITHFULNESS_DOCUMENTS.name: {
                "rows_reused": measured.work.rows_reused,
                "rows_computed": measured.work.rows_computed,
                **asdict(measured.work.spent),
            },
            FAITHFULNESS.name: {
                **{f"recovered_{name}": share for name, share in recovered.items()},
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
                "ablation_effects": dg.MetadataValue.md(
                    histogram(
                        deltas, "Change of cross-entropy without the feature", "nats", log=True
                    )
                ),
            },
        },
    )
