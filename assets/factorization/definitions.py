"""The factorization assets of one fit: its tables, reused where nothing changed, else made anew.

A fit that can't be made never loses what is in the lake: the rows of the last one that succeeded
stay. Where there are none, a row of `factorizations` says why; the run fails either way.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.activations.tables import ACTIVATION_SHARDS, TOKENS
from assets.asset_specs import specs_of_checks, table_specs
from assets.common_inputs import CONCEPTS
from assets.corpus.tables import DOCUMENTS
from assets.factorization.comparison_tables import FEATURE_MATCHES, RANK_CHOICES
from assets.factorization.tables import COEFFICIENTS, FACTORIZATIONS, TABLES
from assets.fingerprints import fingerprint
from assets.partitions import SITE_FITS
from assets.recipe import Input, Recipe
from assets.shared.plots import histogram, line_plot
from assets.shared.progress import Progress
from assets.stage_run import StageRun
from resources.lake import LakeResource
from resources.study import FitSpec, SiteSpec
from resources.study_files import StudiesResource

if TYPE_CHECKING:
    from assets.factorization.fit_inputs import FitInputs
    from assets.factorization.fitting import MadeFit


def _files_read(spec: FitSpec, study_folder: Path) -> dict[str, str]:
    from assets.factorization.public_sae import sae_fingerprint, sae_folder

    if spec.fit.path is None:
        return {}
    folder = sae_folder(spec.fit.path, spec.site.activation_site, study_folder)
    return {"sae_files": sae_fingerprint(folder)}


def _is_supervised(spec: FitSpec) -> bool:
    return spec.fit.is_supervised


# What changes no number must not make a fit anew.
NO_NUMBER_SETTINGS = {"device", "max_memory_gib", "kinds"}
_TOKEN_COLUMNS = ("row", "document_id", "is_massive")
RECIPE = Recipe(
    "factorization",
    stage="factorization",
    tables=TABLES,
    inputs=(
        Input(TOKENS, "site", columns=_TOKEN_COLUMNS),
        Input(ACTIVATION_SHARDS, "site", columns=("sha256",)),
        Input(TOKENS, "input_site", columns=_TOKEN_COLUMNS),
        Input(ACTIVATION_SHARDS, "input_site", columns=("sha256",)),
        replace(CONCEPTS, when=_is_supervised),
    ),
    settings=lambda spec: {
        "fit": spec.fit.model_dump(exclude=NO_NUMBER_SETTINGS),
        # Halves the documents of each concept; only supervised methods see concepts.
        **({"detection": {"seed": spec.study.detection.seed}} if _is_supervised(spec) else {}),
    },
    observed=_files_read,
)


@dg.multi_asset(
    name=RECIPE.name,
    specs=table_specs(RECIPE),
    check_specs=specs_of_checks(RECIPE),
    partitions_def=SITE_FITS,
)
def factorization_assets(
    context: dg.AssetExecutionContext, lake: LakeResource, studies: StudiesResource
) -> Iterator[dg.MaterializeResult]:
    yield from StageRun(context, RECIPE, lake, studies).materialize(_factorize)


def _factorize(run: StageRun) -> Iterator[dg.MaterializeResult]:
    from assets.factorization.fit_source import source_of
    from assets.factorization.fitting import make_fit
    from assets.factorization.inputs import FactorizationError
    from assets.factorization.refit import PreviousFit, previous_fit

    spec = run.fit()
    settings = fingerprint("factorization", spec.fit.model_dump_json(exclude=NO_NUMBER_SETTINGS))
    previous = previous_fit(
        {table: run.lake.read(table, spec.partition) for table in PreviousFit.TABLES},
        run.lake.snapshot_of(FACTORIZATIONS, spec.partition),
        read_coefficients=lambda: run.lake.read(COEFFICIENTS, spec.partition),
    )
    reader = run.activations(spec.site)
    n_massive, sizes = 0, (reader.n_rows, reader.width)
    try:
        inputs = _inputs_of(run, spec, run.study_folder)
        made_with = inputs.fingerprint(settings, spec.fit)
        if previous is not None and previous.inputs_fingerprint == made_with:
            if run.state.has_all_rows:
                yield from run.keep(TABLES)
                return
            previous = None  # rows of it are gone, so there is nothing to go on from
        n_massive = int(inputs.is_massive.sum())
        source = source_of(
            reader,
            spec.fit,
            inputs,
            input_reader=None if spec.input_site is None else run.activations(spec.input_site),
            scratch_folder=run.lake.scratch_folder,
        )
        with Progress(run.log, f"fit {spec.fit.key}", spec.fit.max_iter, "iterations") as progress:
            made = make_fit(
                source,
                spec.fit,
                inputs,
                previous,
                settings=settings,
                on_step=lambda what, done, total: (
                    progress.reach(done, total)
                    if what == "iterations"
                    else run.log.info("%s: %d of %d", what, done, total)
                ),
            )
    except FactorizationError as error:
        if previous is None:
            frames = _failed_frames(spec, str(error), sizes, n_massive)
            run.commit(frames)
            kept = "the lake holds a row of factorizations with this reason"
        else:
            kept = f"the last fit (snapshot {previous.features.snapshot}) stays"
        raise dg.Failure(f"fit {spec.fit.key} could not be made: {error}; {kept}") from error
    run.log.info(
        "%s: %s start (%s); explained variance %.3f, %.1f features a token; %d iterations, %s; "
        "%d features kept, %d new, %d lost",
        spec.fit.key,
        made.refit.start,
        made.refit.reason,
        made.factorization.explained_variance or float("nan"),
        made.factorization.l0,
        made.factorization.n_iter,
        made.factorization.stop_reason,
        *(made.identities.count(kind) for kind in ("kept", "new", "lost")),
    )
    yield from run.write(
        made.frames,
        metadata=_metadata(made),
    )


def _inputs_of(run: StageRun, spec: FitSpec, study_folder: Path) -> "FitInputs":
    """What the fit reads beside the activations; cheap, so that a reused fit loads none."""
    import polars as pl
    import torch

    from assets.corpus.halves import split_in_halves
    from assets.factorization.fit_inputs import FitInputs
    from assets.factorization.public_sae import sae_fingerprint, sae_folder

    def checksums(site: SiteSpec) -> list[str]:
        rows = run.lake.read(ACTIVATION_SHARDS, {"site": site.key}, columns=("sha256",))
        return rows["sha256"].to_list()

    tokens = run.lake.read(
        TOKENS, {"site": spec.site.key}, columns=("row", "document_id", "is_massive")
    )
    # What a transcoder reads: the same tokens at the site of the MLP's input.
    if spec.input_site is not None:
        read = run.lake.read(TOKENS, {"site": spec.input_site.key}, columns=("row", "document_id"))
        if not read.equals(tokens.select(read.columns)):
            raise dg.Failure(
                f"site {spec.input_site.key} holds other tokens than {spec.site.key}; expected the "
                "same documents in both: materialize both sites' activations again"
            )
    # The files of a public SAE, where the fit names one.
    folder = None
    if spec.fit.path is not None:
        folder = sae_folder(spec.fit.path, spec.site.activation_site, study_folder)
    documents = run.lake.read(
        DOCUMENTS,
        {"study": spec.study.name, "status": "ok"},
        columns=("document_id", "minhash", "concept"),
    )
    concepts = dict(documents.select("document_id", "concept").iter_rows())
    # The half that detection chooses on; concept AUROC is measured on the other.
    to_fit = split_in_halves(
        documents["minhash"].to_list(),
        documents["concept"].to_list(),
        spec.study.detection.seed,
    )
    held_out = set(documents["document_id"].filter(~pl.Series(to_fit)))
    of_token = tokens["document_id"].to_list()
    return FitInputs(
        shards=checksums(spec.site),
        documents=of_token,
        is_massive=torch.from_numpy(tokens["is_massive"].to_numpy(writable=True)),
        concepts=[concepts.get(document) for document in of_token],
        is_held_out=torch.tensor([document in held_out for document in of_token]),
        site=spec.site.activation_site,
        input_shards=[] if spec.input_site is None else checksums(spec.input_site),
        sae_folder=folder,
        sae_fingerprint=None if folder is None else sae_fingerprint(folder),
    )


def _failed_frames(
    spec: FitSpec, reason: str, sizes: tuple[int, ...], n_massive: int
) -> dict[Any, Any]:
    """A failed row of `factorizations` and no rows in the other tables."""
    from assets.factorization.frames import failed_factorization_frame

    empty = {table: table.empty().drop(table.partition_by) for table in TABLES}
    row = failed_factorization_frame(
        spec.fit, reason, n_tokens=sizes[0], width=sizes[1], n_massive_excluded=n_massive
    )
    return empty | {FACTORIZATIONS: row}


def _metadata(made: "MadeFit") -> dict[str, dict[str, Any]]:
    """Numbers and plots of each table's materialization."""
    from assets.factorization.rank_plot import rank_plot

    fitted = made.factorization
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
    choice = {}
    if made.rank_choice is not None:
        choice = {
            "rank": made.rank_choice.rank,
            "reason": made.rank_choice.reason,
            "candidates": dg.MetadataValue.md(rank_plot(made.rank_choice)),
        }
    coefficients = made.frames[COEFFICIENTS]["coefficient"]
    shown = coefficients.sample(min(len(coefficients), 100_000), seed=0).to_list()
    return {
        FACTORIZATIONS.name: {
            "explained_variance": fitted.explained_variance,
            "l0": fitted.l0,
            "start": made.refit.start,
            "start_reason": made.refit.reason,
            "n_iter": fitted.n_iter,
            "is_converged": fitted.is_converged,
            "n_dead_features": fitted.n_dead_features,
            **plots,
        },
        COEFFICIENTS.name: {
            "coefficient_histogram": dg.MetadataValue.md(
                histogram(shown, "Coefficients above zero", "coefficient", log=True)
            )
        },
        FEATURE_MATCHES.name: {
            f"n_{kind}": made.identities.count(kind)
            for kind in ("kept", "new", "lost", "split", "merged")
        },
        RANK_CHOICES.name: choice,
    }
