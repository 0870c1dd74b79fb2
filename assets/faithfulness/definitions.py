"""The faithfulness assets of one fit: `faithfulness` and `feature_faithfulness`."""

from collections.abc import Iterator

import dagster as dg

from assets.activations.tables import ACTIVATION_SHARDS, TOKENS
from assets.factorization.tables import COEFFICIENTS, DICTIONARY, FACTORIZATIONS
from assets.faithfulness.tables import FAITHFULNESS, FEATURE_FAITHFULNESS, TABLES
from assets.partitions import SITE_FITS, site_of_fit
from assets.shared.plots import histogram, markdown_plot
from assets.shared.progress import Progress
from assets.stage_run import StageRun, specs_of_checks, table_specs
from resources.lake import LakeResource
from resources.model_resource import SubjectModelResource
from resources.study import StudiesResource


@dg.multi_asset(
    name="faithfulness",
    specs=table_specs(
        TABLES,
        deps=[
            FACTORIZATIONS.name,
            DICTIONARY.name,
            COEFFICIENTS.name,
            *(
                dg.AssetDep(table.name, partition_mapping=site_of_fit())
                for table in (TOKENS, ACTIVATION_SHARDS)
            ),
        ],
    ),
    check_specs=specs_of_checks(TABLES),
    partitions_def=SITE_FITS,
    pool="subject_model",
)
def faithfulness_assets(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    studies: StudiesResource,
    subject_models: SubjectModelResource,
) -> Iterator[dg.MaterializeResult]:
    import torch

    from assets.activations.tokenization import special_prefix
    from assets.factorization.strength_order import strongest_features
    from assets.faithfulness.measure import Fit, mean_row_of, measure_faithfulness
    from assets.faithfulness.sample import sample_documents

    run = StageRun(context, lake, studies)
    spec = run.fit()
    config = spec.study.faithfulness
    site = {"site": spec.site.key}
    subject = subject_models.load(spec.site.model)
    fitted = run.fitted(spec)
    coefficients = run.lake.read(
        COEFFICIENTS, spec.partition, columns=("row", "feature_id", "coefficient")
    )
    tokens = run.lake.read(
        TOKENS, site, columns=("row", "document_id", "position", "token_id", "is_massive")
    ).sort("row")
    offset = fitted.row["offset_vector"]
    fit = Fit(
        feature_ids=fitted.feature_ids,
        dictionary=fitted.dictionary,
        coefficients=coefficients,
        offset=None if offset is None else torch.tensor(offset),
        mean_row=mean_row_of(run.activations(spec.site), (~tokens["is_massive"]).to_list()),
    )
    sample = sample_documents(
        tokens, special_prefix(subject.tokenizer), config.n_documents, config.seed
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
            on_progress=progress.reach,
        )
    shares = measured.replacements
    recovered = dict(shares.select("replacement", "recovered").drop_nulls().iter_rows())
    deltas = measured.features["delta_cross_entropy"].drop_nulls().to_list()
    yield from run.write(
        {FAITHFULNESS: shares, FEATURE_FAITHFULNESS: measured.features},
        spec.partition,
        configs=[config],
        metadata={
            FAITHFULNESS.name: {
                **{f"recovered_{name}": share for name, share in recovered.items()},
                "layer_token_evaluations": measured.layer_token_evaluations,
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
                )
            },
        },
    )
