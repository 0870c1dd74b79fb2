"""Runs documents through the subject model and writes their activations to shards.

Documents, in their order, are cut into groups of about `shard_tokens` rows; each (group, site) is
one shard, named by a hash of all that determines it. A shard that is there is not computed again,
so a killed capture goes on at the first missing shard, and a second site needs no second forward
pass over groups it shares. Within a group, documents are sorted by length, padded on the right
and batched to `batch_tokens`; rows come back in document order, then position. Special prefix and
padding tokens are run but have no row. Memory is bounded by one batch and one group's rows.

The file format is shards.py; what the rows look like is statistics.py.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from assets.activations.hooks import record_sites, run_forward
from assets.activations.model_structure import locate_site
from assets.activations.shards import ShardFile, ShardRecord, complete_shard, write_shard
from assets.activations.site_names import ActivationSite
from assets.activations.tokenization import TokenizedDocument

FORMAT_VERSION = 1
"""Part of every shard's name; raise it when what is captured changes meaning."""


class CaptureError(ValueError):
    """Documents that the model cannot take, or nothing to capture."""


@dataclass(frozen=True)
class CaptureSettings:
    """Where shards go and how large; `model_revision` and `dtype` identify what made them."""

    folder: Path
    model_revision: str
    dtype: str = "float32"
    batch_tokens: int = 2048
    shard_tokens: int = 8192


@dataclass(frozen=True)
class CaptureProgress:
    """Told after each group: what is done of what, and whether the group was there already."""

    groups_done: int
    groups_total: int
    rows_done: int
    rows_total: int
    was_reused: bool


@dataclass(frozen=True)
class CaptureResult:
    """The shards of each site key, in row order, and what was run, kept and dropped.

    `n_padding` counts the padding tokens of the forward passes of this call (none when reused).
    """

    shards: Mapping[str, tuple[ShardRecord, ...]]
    n_rows: int
    n_dropped_special: int
    n_padding: int
    n_truncated_documents: int
    n_forward_passes: int
    n_shards_written: int
    n_shards_reused: int


def capture_shards(
    model: nn.Module,
    documents: Sequence[TokenizedDocument],
    sites: Sequence[ActivationSite],
    settings: CaptureSettings,
    on_progress: Callable[[CaptureProgress], None] | None = None,
) -> CaptureResult:
    """Captures every site for every document; see the module's docstring.

    Raises CaptureError for documents longer than the model's positions or when no document has a
    token, SiteError for sites that the model lacks, ShardError when the disk refuses.
    """
    _check_documents(model, documents)
    widths = {site: locate_site(model, site).width for site in sites}
    groups = list(group_documents(documents, settings.shard_tokens))
    rows_total = sum(document.n_rows for document in documents)
    shards: dict[str, list[ShardRecord]] = {site.key: [] for site in sites}
    first_row = n_padding = n_passes = n_written = 0

    for number, group in enumerate(groups):
        paths = {site: settings.folder / shard_name(group, site, settings) for site in sites}
        files: dict[ActivationSite, ShardFile] = {}
        for site, path in paths.items():
            if (found := complete_shard(path)) is not None:
                files[site] = found
        missing = {site: widths[site] for site in sites if site not in files}
        if missing:
            batches = list(length_sorted_batches(group, settings.batch_tokens))
            rows = _group_activations(model, group, batches, missing)
            for site in missing:
                files[site] = write_shard(paths[site], rows.pop(site))
            n_written += len(missing)
            n_passes += len(batches)
            n_padding += sum(_padding(group, batch) for batch in batches)
        n_rows = sum(document.n_rows for document in group)
        n_special = sum(document.n_special_prefix for document in group)
        for site, file in files.items():
            shards[site.key].append(
                ShardRecord(
                    **asdict(file), shard=number, first_row=first_row, n_dropped_special=n_special
                )
            )
        first_row += n_rows
        if on_progress is not None:
            on_progress(
                CaptureProgress(number + 1, len(groups), first_row, rows_total, not missing)
            )

    return CaptureResult(
        shards={key: tuple(records) for key, records in shards.items()},
        n_rows=first_row,
        n_dropped_special=sum(document.n_special_prefix for document in documents),
        n_padding=n_padding,
        n_truncated_documents=sum(document.is_truncated for document in documents),
        n_forward_passes=n_passes,
        n_shards_written=n_written,
        n_shards_reused=len(groups) * len(sites) - n_written,
    )


def capture_rows(
    model: nn.Module,
    documents: Sequence[TokenizedDocument],
    site: ActivationSite,
    batch_tokens: int = 2048,
) -> Float[Tensor, "n_rows width"]:
    """The rows of a few documents (probe sentences, say) in memory, by document then position."""
    _check_documents(model, documents)
    batches = list(length_sorted_batches(documents, batch_tokens))
    width = locate_site(model, site).width
    return _group_activations(model, documents, batches, {site: width})[site]


def group_documents(
    documents: Sequence[TokenizedDocument], shard_tokens: int
) -> Iterator[list[TokenizedDocument]]:
    """Consecutive documents, a group closing once it has at least `shard_tokens` rows.

    Documents without a token of their own have no rows and are left out.
    """
    group: list[TokenizedDocument] = []
    n_rows = 0
    for document in documents:
        if not document.n_rows:
            continue
        group.append(document)
        n_rows += document.n_rows
        if n_rows >= shard_tokens:
            yield group
            group, n_rows = [], 0
    if group:
        yield group


def shard_name(
    group: Sequence[TokenizedDocument], site: ActivationSite, settings: CaptureSettings
) -> str:
    """File name from what determines the rows: model, number type, site and token ids.

    Batch size is left out: it changes rows by rounding only. Document ids are left out: a renamed
    document has the same activations.
    """
    content = {
        "format": FORMAT_VERSION,
        "model_revision": settings.model_revision,
        "dtype": settings.dtype,
        "site": site.key,
        "documents": [[document.n_special_prefix, *document.token_ids] for document in group],
    }
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return f"{site.key}-{digest[:24]}.parquet"


def length_sorted_batches(
    group: Sequence[TokenizedDocument], batch_tokens: int
) -> Iterator[list[int]]:
    """Indices into `group`, longest first, each batch at most `batch_tokens` with its padding.

    A document longer than `batch_tokens` makes a batch of its own.
    """
    order = sorted(range(len(group)), key=lambda i: (-len(group[i].token_ids), i))
    batch: list[int] = []
    for index in order:
        longest = len(group[batch[0]].token_ids) if batch else 0
        if batch and longest * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def padded_inputs(
    model: nn.Module, sequences: Sequence[Sequence[int]]
) -> dict[str, Int[Tensor, "batch longest"]]:
    """Token ids padded on the right, attention mask and positions, on the model's device.

    Under causal attention no real token sees the padding to its right, whose id does not matter.
    """
    longest = max(len(sequence) for sequence in sequences)
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, sequence in enumerate(sequences):
        ids[i, : len(sequence)] = torch.tensor(sequence)
        mask[i, : len(sequence)] = 1
    inputs = {"input_ids": ids, "attention_mask": mask}
    if "position_ids" in inspect.signature(model.forward).parameters:
        inputs["position_ids"] = torch.arange(longest).expand(len(sequences), -1)
    device = next(model.parameters()).device
    return {name: tensor.to(device) for name, tensor in inputs.items()}


def _group_activations(
    model: nn.Module,
    group: Sequence[TokenizedDocument],
    batches: Sequence[Sequence[int]],
    widths: Mapping[ActivationSite, int],
) -> dict[ActivationSite, Float[Tensor, "n_rows width"]]:
    starts = [0]
    for document in group:
        starts.append(starts[-1] + document.n_rows)
    rows: dict[ActivationSite, Tensor] = {}
    batch: Sequence[int] = ()

    def keep(site: ActivationSite, activations: Tensor) -> None:
        if site not in rows:
            rows[site] = torch.empty(starts[-1], widths[site], dtype=activations.dtype)
        on_cpu = activations.to("cpu")
        for i, index in enumerate(batch):
            document = group[index]
            kept = on_cpu[i, document.n_special_prefix : len(document.token_ids)]
            rows[site][starts[index] : starts[index + 1]] = kept

    last_layer = max(site.layer for site in widths)
    with torch.no_grad(), record_sites(model, list(widths), keep):
        for batch in batches:
            inputs = padded_inputs(model, [group[index].token_ids for index in batch])
            run_forward(model, inputs, stop_layer=last_layer)
    return rows


def _padding(group: Sequence[TokenizedDocument], batch: Sequence[int]) -> int:
    lengths = [len(group[index].token_ids) for index in batch]
    return max(lengths) * len(lengths) - sum(lengths)


def _check_documents(model: nn.Module, documents: Sequence[TokenizedDocument]) -> None:
    if not any(document.n_rows for document in documents):
        raise CaptureError(
            f"{len(documents)} documents with no token among them; expected at least one token; "
            "check the corpus"
        )
    config = model.config.get_text_config()  # pyright: ignore
    limit = getattr(config, "max_position_embeddings", None)
    longest = max(documents, key=lambda document: len(document.token_ids))
    if isinstance(limit, int) and len(longest.token_ids) > limit:
        raise CaptureError(
            f"document {longest.document_id!r} has {len(longest.token_ids)} tokens; the model "
            f"takes at most {limit}; set activations.max_tokens_per_document to {limit} or less"
        )
