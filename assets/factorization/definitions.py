"""The factorization assets of one fit: `factorizations`, `dictionary` and `coefficients`."""

from collections.abc import Iterator

import dagster as dg

from assets.activations.tables import ACTIVATION_SHARDS, TOKENS
from assets.corpus.tables import DOCUMENTS
from assets.factorization.tables import COEFFICIENTS, DICTIONARY, FACTORIZATIONS, TABLES
from assets.partitions import SITE_FITS, site_of_fit
from assets.shared.plots import histogram, line_plot
from assets.shared.progress import Progress
from assets.stage_run import StageRun, specs_of_checks, table_specs
from resources.lake import LakeResource
from resources.study import StudiesResource


@dg.multi_asset(
    name="factorization",
    specs=table_specs(
        TABLES,
        deps=[
            dg.AssetDep(table.name, partition_mapping=site_of_fit())
            for table in (TOKENS, ACTIVATION_SHARDS)
        ],
    ),
    check_specs=specs_of_checks(TABLES),
    partitions_def=SITE_FITS,
)
def factorization_assets(
    context: dg.AssetExecutionContext, lake: LakeResource, studies: StudiesResource
) -> Iterator[dg.MaterializeResult]:
    import polars as pl
    import torch

    from assets.activations.shards import ActivationReader, ShardRecord
    from assets.corpus.halves import split_in_halves
    from assets.factorization.frames import (
        coefficients_frame,
        dictionary_frame,
        factorization_frame,
    )
    from assets.factorization.methods import factorize

    run = StageRun(context, lake, studies)
    spec = run.fit()
    site = {"site": spec.site.key}
    shards = [
        ShardRecord.from_row(row) for row in run.lake.read(ACTIVATION_SHARDS, site).to_dicts()
    ]
    activations = ActivationReader(shards, run.lake.shards_folder).load()
    tokens = run.lake.read(TOKENS, site, columns=("row", "document_id", "is_massive"))
    documents = run.lake.read(
        DOCUMENTS, {"study": spec.study.name, "status": "ok"}, columns=("document_id", "concept")
    )
    concepts = dict(documents.iter_rows())
    # The half that detection chooses on; concept AUROC is measured on the other.
    to_fit = split_in_halves(documents["concept"].to_list(), spec.study.detection.seed)
    held_out = set(documents["document_id"].filter(~pl.Series(to_fit)))
    with Progress(run.log, f"fit {spec.fit.key}", spec.fit.max_iter, "iterations") as progress:
        fitted = factorize(
            activations,
            spec.fit,
            concepts=[concepts.get(document) for document in tokens["document_id"]],
            is_held_out=torch.tensor([d in held_out for d in tokens["document_id"]]),
            is_massive=torch.from_numpy(tokens["is_massive"].to_numpy(writable=True)),
            on_iteration=lambda iteration, _: progress.reach(iteration, spec.fit.max_iter),
        )
    coefficients = coefficients_frame(fitted)
    run.log.info(
        "%s: explained variance %.3f, %.1f features a token; %d iterations, %s",
        spec.fit.key,
        fitted.explained_variance or float("nan"),
        fitted.l0,
        fitted.n_iter,
        fitted.stop_reason,
    )
    plots = {}
    if len(fitted.explained_variance_trace) > 1:
        plots["explained_variance_by_iteration"] = dg.MetadataValue.md(
            line_plot(
                fitted.explained_variance_trace,
                "Explained variance by iteration",
                "iteration",
                "explained variance",
            )
        )
    yield from run.write(
        {
            FACTORIZATIONS: factorization_frame(fitted, spec.fit),
            DICTIONARY: dictionary_frame(fitted),
            COEFFICIENTS: coefficients,
        },
        spec.partition,
        configs=[spec.fit, str(spec.study.detection.seed) if spec.fit.is_supervised else None],
        metadata={
            FACTORIZATIONS.name: {
                "explained_variance": fitted.explained_variance,
                "l0": fitted.l0,
                "n_iter": fitted.n_iter,
                "is_converged": fitted.is_converged,
                "n_dead_features": fitted.n_dead_features,
                **plots,
            },
            COEFFICIENTS.name: {
                "coefficient_histogram": dg.MetadataValue.md(
                    histogram(
                        coefficients["coefficient"].to_list(),
                        "Coefficients above zero",
                        "coefficient",
                        log=True,
                    )
                )
            },
        },
    )
