"""The activations assets of one site: `tokens`, `activation_shards`, `activation_stats`,
`neuron_stats`.

Only documents that were not captured before are run. One forward pass serves every site of the
model in the study that lacks them, so the sites after the first find their shards on disk.
"""

from collections.abc import Iterator

import dagster as dg

from assets.activations.tables import (
    ACTIVATION_SHARDS,
    ACTIVATION_STATS,
    NEURON_STATS,
    TABLES,
    TOKENS,
)
from assets.asset_specs import specs_of_checks, table_specs
from assets.corpus.tables import DOCUMENTS
from assets.partitions import SITES
from assets.recipe import Input, Recipe
from assets.shared.plots import histogram
from assets.shared.progress import Progress
from assets.stage_run import StageRun
from resources.lake import LakeResource
from resources.model_resource import SubjectModelResource
from resources.study_files import StudiesResource

RECIPE = Recipe(
    "activations",
    stage="activations",
    tables=TABLES,
    inputs=(
        Input(
            DOCUMENTS,
            "study",
            columns=("document_id", "text", "status", "source", "source_row"),
        ),
    ),
    # Batches change rows by rounding only, and are no reason to run the model again.
    settings=lambda site: {
        "activations": site.study.activations.model_dump(exclude={"batch_tokens"}),
        "model": site.model.model_dump(include={"source", "revision", "dtype"}),
    },
    uses_model=True,
)


@dg.multi_asset(
    name=RECIPE.name,
    specs=table_specs(RECIPE),
    check_specs=specs_of_checks(RECIPE),
    partitions_def=SITES,
    pool="subject_model",
)
def activation_assets(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    studies: StudiesResource,
    subject_models: SubjectModelResource,
) -> Iterator[dg.MaterializeResult]:
    run = StageRun(context, RECIPE, lake, studies, subject_models)
    yield from run.materialize(_capture)


def _capture(run: StageRun) -> Iterator[dg.MaterializeResult]:
    from assets.activations.capture import CaptureSettings, capture_shards
    from assets.activations.neuron_statistics import neuron_frame, neuron_statistics
    from assets.activations.shards import ActivationReader, shard_frame
    from assets.activations.statistics import (
        massive_rows,
        row_statistics,
        stats_frame,
        token_frame,
        token_positions,
    )
    from assets.activations.tokenization import token_pieces, tokenize_documents

    spec = run.site()
    config = spec.study.activations
    subject = run.subject()
    accepted = run.lake.read(
        DOCUMENTS,
        {"study": spec.study.name, "status": "ok"},
        columns=("document_id", "text"),
        order_by=("source", "source_row"),
    )
    if accepted.is_empty():
        raise dg.Failure(
            f"study {spec.study.name!r} has no documents in the lake; materialize `documents` first"
        )
    documents = tokenize_documents(
        subject.tokenizer, list(accepted.iter_rows()), config.max_tokens_per_document
    )
    n_tokens = sum(document.n_rows for document in documents)
    with Progress(run.log, "activations", n_tokens, "tokens") as progress:
        captured = capture_shards(
            subject.model,
            documents,
            [site.activation_site for site in spec.siblings()],
            CaptureSettings(
                folder=run.lake.shards_folder,
                model_revision=subject.revision,
                dtype=subject.dtype,
                batch_tokens=config.batch_tokens,
                shard_tokens=config.shard_tokens,
            ),
            on_progress=lambda state: progress.reach(state.rows_done, state.rows_total),
        )
    shards = captured.shards[spec.activation_site.key]
    reader = ActivationReader(shards, run.lake.shards_folder)
    statistics = row_statistics(reader)
    is_massive = massive_rows(statistics.norms, config.massive_norm_ratio)
    neurons = neuron_statistics(reader, ~is_massive)
    pieces = token_pieces(
        subject.tokenizer, (token for document in documents for token in document.token_ids)
    )
    yield from run.write(
        {
            TOKENS: token_frame(documents, pieces, statistics.norms, is_massive),
            ACTIVATION_SHARDS: shard_frame(shards),
            ACTIVATION_STATS: stats_frame(
                statistics, token_positions(documents), is_massive, neurons
            ),
            NEURON_STATS: neuron_frame(neurons),
        },
        metadata={
            ACTIVATION_SHARDS.name: {
                "n_forward_passes": captured.n_forward_passes,
                "forward_tokens": captured.n_forward_tokens,
                "rows_computed": captured.n_rows_run,
                "rows_reused": captured.n_rows - captured.n_rows_run,
                "n_documents_run": captured.n_documents_run,
                "n_documents_reused": captured.n_documents_reused,
                "n_shards_written": captured.n_shards_written,
                "n_shards_reused": captured.n_shards_reused,
                "n_padding_tokens": captured.n_padding,
                "n_special_tokens_dropped": captured.n_dropped_special,
                "n_truncated_documents": captured.n_truncated_documents,
                "model_revision": subject.revision,
            },
            ACTIVATION_STATS.name: {
                "n_massive_tokens": int(is_massive.sum()),
                "row_norms": dg.MetadataValue.md(
                    histogram(
                        statistics.norms.tolist(), "Row norms", "L2 norm of a token's row", log=True
                    )
                ),
            },
            NEURON_STATS.name: {
                "share_neurons_lazy": neurons.share_lazy,
                "share_neurons_dead": neurons.share_dead,
                "activity": dg.MetadataValue.md(
                    histogram(
                        neurons.share_active.tolist(),
                        "How many tokens a neuron is active on",
                        "share of tokens",
                        log=True,
                    )
                ),
            },
        },
    )
