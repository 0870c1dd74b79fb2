"""Batches of documents through the model, and the activation rows of each document.

On a CPU a batch holds documents of one length, so nothing is padded, and no fewer than 16 tokens a
thread: the last document is repeated where there are fewer. Matrix products of at least that many
rows compute each row in the same way whatever the others are, so a document's rows do not depend
on its batch mates: on SmolLM2 and Gemma 3 they are equal to the bit (docs/decisions.md), at no more
cost than padded batches. Where a layer's width is no multiple of the processor's vectors (tiny
models), they are equal to rounding.

On a GPU, where many small batches are slow and kernels are chosen by shape, documents are sorted
by length and padded on the right: rows are equal to rounding. Padding and special prefix are run
but are no rows. What is kept, and where, is the caller's matter.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from assets.activations.hooks import record_sites, run_forward
from assets.activations.site_names import ActivationSite
from assets.activations.tokenization import TokenizedDocument

ROWS_PER_THREAD = 16

KeepRows = Callable[[ActivationSite, int, Float[Tensor, "n_rows width"]], None]


@dataclass(frozen=True)
class BatchCount:
    """Forward passes, the documents' tokens in them (special prefix counted), and other tokens.

    `n_padding` counts right padding and repeated documents.
    """

    n_passes: int = 0
    n_tokens: int = 0
    n_padding: int = 0

    def __add__(self, other: BatchCount) -> BatchCount:
        return BatchCount(
            self.n_passes + other.n_passes,
            self.n_tokens + other.n_tokens,
            self.n_padding + other.n_padding,
        )


def forward_documents(
    model: nn.Module,
    documents: Sequence[TokenizedDocument],
    sites: Sequence[ActivationSite],
    batch_tokens: int,
    keep: KeepRows,
) -> BatchCount:
    """Runs each document once, and calls `keep(site, index, rows)` for each at each site.

    The rows, [n_rows, width] on the CPU, are the batch's memory: copy what outlives the call. The
    model runs as far as its last site.
    """
    if not documents:
        return BatchCount()
    lengths = [len(document.token_ids) for document in documents]
    if next(model.parameters()).device.type == "cpu":
        batches = list(
            same_length_batches(documents, batch_tokens, ROWS_PER_THREAD * torch.get_num_threads())
        )
    else:
        batches = list(length_sorted_batches(documents, batch_tokens))
    batch: Sequence[int] = ()

    def hand_over(site: ActivationSite, activations: Float[Tensor, "batch longest width"]) -> None:
        on_cpu = activations.to("cpu")
        for index, i in {index: i for i, index in enumerate(batch)}.items():
            keep(site, index, on_cpu[i, documents[index].n_special_prefix : lengths[index]])

    n_run = 0
    with torch.no_grad(), record_sites(model, sites, hand_over):
        for batch in batches:
            inputs = padded_inputs(model, [documents[index].token_ids for index in batch])
            run_forward(model, inputs, stop_layer=max(site.layer for site in sites))
            n_run += inputs["input_ids"].numel()
    return BatchCount(len(batches), sum(lengths), n_run - sum(lengths))


def same_length_batches(
    documents: Sequence[TokenizedDocument], batch_tokens: int, least_tokens: int
) -> Iterator[list[int]]:
    """Indices into `documents`, longest first; a batch's documents have one length.

    The last index is repeated until the batch has `least_tokens`, never beyond `batch_tokens`. A
    document longer than `batch_tokens` makes a batch of its own.
    """
    by_length: dict[int, list[int]] = {}
    for index, document in enumerate(documents):
        by_length.setdefault(len(document.token_ids), []).append(index)
    for length, indices in sorted(by_length.items(), reverse=True):
        most = max(1, batch_tokens // length)
        least = min(most, -(-least_tokens // length))
        for start in range(0, len(indices), most):
            batch = indices[start : start + most]
            yield batch + batch[-1:] * (least - len(batch))


def length_sorted_batches(
    documents: Sequence[TokenizedDocument], batch_tokens: int
) -> Iterator[list[int]]:
    """Indices into `documents`, longest first, each batch at most `batch_tokens` with its padding.

    A document longer than `batch_tokens` makes a batch of its own.
    """
    order = sorted(range(len(documents)), key=lambda i: (-len(documents[i].token_ids), i))
    batch: list[int] = []
    for index in order:
        longest = len(documents[batch[0]].token_ids) if batch else 0
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
