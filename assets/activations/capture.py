"""Captures documents' activations at sites of the subject model, and writes them to shards.

Documents, in their order, are cut into groups (shard_groups.py); each (group, site) is one
shard, named by a hash of all that determines it. What is there is not computed again: a shard
found by name is taken whole; in a group that changed, the rows of documents that any shard of the
folder holds (captured_documents.py) are copied (copied_rows.py), and only the remaining documents
go through the model (batched_forward.py), once for all sites that lack them. Tables, order and
row numbers are those of a capture from scratch; rows differ from it by rounding at most. A killed
capture goes on at the first missing shard. Memory is bounded by one batch and one group's rows.

The file format is shards.py; what the rows look like is statistics.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from assets.activations.batched_forward import BatchCount, forward_documents
from assets.activations.captured_documents import CapturedDocuments, ShardContents
from assets.activations.copied_rows import copy_rows
from assets.activations.model_structure import locate_site
from assets.activations.shard_groups import DocumentGroup, group_documents
from assets.activations.shards import ShardFile, ShardRecord, complete_shard, write_shard
from assets.activations.site_names import ActivationSite
from assets.activations.tokenization import TokenizedDocument

FORMAT_VERSION = 1
"""Part of every shard's name and scope; raise it when what is captured changes meaning."""


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
    """Told after each group: what is done of what, and whether none of its documents was run."""

    groups_done: int
    groups_total: int
    rows_done: int
    rows_total: int
    was_reused: bool


@dataclass(frozen=True)
class CaptureResult:
    """The shards of each site key, in row order, and what was run, kept and dropped.

    Counts are of this call. `n_forward_tokens` are tokens of documents that were run, special
    prefix counted; `n_padding` what was run beside them (batched_forward.py). A document is run
    where a site lacks it, else reused, as the second of two with the same tokens is; those without
    a token of their own are neither. `n_rows_run` are the rows of documents that were run.
    """

    shards: Mapping[str, tuple[ShardRecord, ...]]
    n_rows: int
    n_rows_run: int
    n_dropped_special: int
    n_truncated_documents: int
    n_forward_passes: int
    n_forward_tokens: int
    n_padding: int
    n_documents_run: int
    n_documents_reused: int
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
    rows_total = sum(group.n_rows for group in groups)
    shards: dict[str, list[ShardRecord]] = {site.key: [] for site in sites}
    forward = BatchCount()
    first_row = n_run = n_rows_run = n_written = 0

    with closing(CapturedDocuments(settings.folder)) as captured:
        for number, group in enumerate(groups):
            done = _capture_group(model, group, widths, settings, captured)
            for site, file in done.files.items():
                shards[site.key].append(
                    ShardRecord(
                        **asdict(file),
                        shard=number,
                        first_row=first_row,
                        n_dropped_special=sum(d.n_special_prefix for d in group.documents),
                    )
                )
            forward += done.forward
            n_run += len(done.documents_run)
            n_rows_run += sum(document.n_rows for document in done.documents_run)
            n_written += done.n_written
            first_row += group.n_rows
            if on_progress is not None:
                on_progress(
                    CaptureProgress(
                        number + 1, len(groups), first_row, rows_total, not done.documents_run
                    )
                )

    return CaptureResult(
        shards={key: tuple(records) for key, records in shards.items()},
        n_rows=first_row,
        n_rows_run=n_rows_run,
        n_dropped_special=sum(document.n_special_prefix for document in documents),
        n_truncated_documents=sum(document.is_truncated for document in documents),
        n_forward_passes=forward.n_passes,
        n_forward_tokens=forward.n_tokens,
        n_padding=forward.n_padding,
        n_documents_run=n_run,
        n_documents_reused=sum(len(group.documents) for group in groups) - n_run,
        n_shards_written=n_written,
        n_shards_reused=len(groups) * len(sites) - n_written,
    )


@dataclass(frozen=True)
class _CapturedGroup:
    files: Mapping[ActivationSite, ShardFile]
    forward: BatchCount
    documents_run: Sequence[TokenizedDocument]
    n_written: int


def _capture_group(
    model: nn.Module,
    group: DocumentGroup,
    widths: Mapping[ActivationSite, int],
    settings: CaptureSettings,
    captured: CapturedDocuments,
) -> _CapturedGroup:
    paths = {site: settings.folder / shard_name(group.documents, site, settings) for site in widths}
    files: dict[ActivationSite, ShardFile] = {}
    matrices: dict[ActivationSite, Tensor] = {}
    lacking: dict[ActivationSite, set[bytes]] = {}
    for site, path in paths.items():
        if (found := complete_shard(path)) is not None:
            files[site] = found
            continue
        # float32 holds every number type that models compute in and shards store.
        matrices[site] = torch.empty(group.n_rows, widths[site])
        lacking[site] = copy_rows(matrices[site], group, captured, _scope(site, settings))

    to_run = [key for key in group.distinct if any(key in keys for keys in lacking.values())]
    documents_run = [group.distinct[key] for key in to_run]

    def keep(site: ActivationSite, index: int, rows: Tensor) -> None:
        if to_run[index] in lacking[site]:
            group.place(matrices[site], to_run[index], rows.float())

    forward = forward_documents(
        model,
        documents_run,
        [site for site, keys in lacking.items() if keys],
        settings.batch_tokens,
        keep,
    )
    captured.add(
        [ShardContents(path.name, _scope(site, settings), group) for site, path in paths.items()]
    )
    for site in lacking:
        files[site] = write_shard(paths[site], matrices.pop(site))
    return _CapturedGroup(files, forward, documents_run, len(lacking))


def capture_rows(
    model: nn.Module,
    documents: Sequence[TokenizedDocument],
    site: ActivationSite,
    batch_tokens: int = 2048,
) -> Float[Tensor, "n_rows width"]:
    """Rows of a few documents (probe sentences, say), by document then position, in float32."""
    _check_documents(model, documents)
    first_rows = [0, *accumulate(document.n_rows for document in documents)]
    matrix = torch.empty(first_rows[-1], locate_site(model, site).width)

    def keep(_: ActivationSite, index: int, rows: Tensor) -> None:
        matrix[first_rows[index] : first_rows[index + 1]] = rows

    forward_documents(model, documents, [site], batch_tokens, keep)
    return matrix


def shard_name(
    group: Sequence[TokenizedDocument], site: ActivationSite, settings: CaptureSettings
) -> str:
    """File name from what determines the rows: model, number type, site and token ids.

    Batch size is left out, and whether rows were copied: these change rows by rounding only.
    Document ids are left out: a renamed document has the same activations.
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


def _scope(site: ActivationSite, settings: CaptureSettings) -> str:
    """All that determines a document's rows beside its tokens (captured_documents.py)."""
    return json.dumps([FORMAT_VERSION, settings.model_revision, settings.dtype, site.key])


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
