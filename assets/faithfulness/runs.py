"""Runs of the model: one document, one thing in the place of its rows at the site.

Either all rows are replaced (replacements.py) or one feature is taken out of them (ablation.py).
A run gives sums over the document's predictions, in nats: over all of them, or, with a feature
taken out, over those from its first active token on. No run depends on another's, so one serves
as long as what it is made of stays (reuse.py).

A batch of documents is run once as it is; all that is asked of it is run from the site's block on
before the next, so memory holds the logits of one batch. On a CPU every forward has documents of
one length and enough positions for each to be computed as in any other (batched_forward.py): what
was run before and what is run anew are equal to the bit. On a GPU they are equal to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from assets.activations.batched_forward import (
    ROWS_PER_THREAD,
    length_sorted_batches,
    same_length_batches,
)
from assets.activations.sites import ActivationSite
from assets.activations.tokenization import TokenizedDocument
from assets.faithfulness.ablation import ABLATION, changeable, rows_without
from assets.faithfulness.fit import Fit
from assets.faithfulness.replaced_forward import DocumentBatch, Spent, TokenLosses
from assets.faithfulness.replacements import REPLACEMENTS, check_identity, replacement_rows
from assets.faithfulness.sample import SampledDocument


@dataclass(frozen=True)
class DocumentRun:
    """What is run: a document of the sample, by its place there, with one of REPLACEMENTS, or
    ABLATION and the dictionary row that is taken out."""

    document: int
    replacement: str
    feature: int | None = None


@dataclass(frozen=True)
class RunSums:
    """What a run gives, by the columns of `faithfulness_documents`; sums are in nats."""

    n_tokens: int
    n_tokens_active: int | None
    cross_entropy_base: float
    cross_entropy_replaced: float
    delta_at_active: float | None
    kl_nats: float


def wanted_runs(n_documents: int, plan: dict[int, list[int]]) -> list[DocumentRun]:
    """Every replacement of every document, and the planned ablations, document by document."""
    return [
        run
        for document in range(n_documents)
        for run in (
            *(DocumentRun(document, name) for name in REPLACEMENTS),
            *(DocumentRun(document, ABLATION, feature) for feature in plan.get(document, ())),
        )
    ]


def run_documents(
    model: Any,
    site: ActivationSite,
    sample: Sequence[SampledDocument],
    coefficients: Sequence[csr_matrix],
    fit: Fit,
    runs: Iterable[DocumentRun],
    batch_tokens: int,
    advance: Callable[[int], None],
) -> tuple[dict[DocumentRun, RunSums], Spent]:
    """The sums of each of `runs`, and what was run for them; documents without one aren't run.

    `coefficients` are those of the sample's documents, [n_rows, k]; a forward has at most
    `batch_tokens` positions (one document at least). `advance` is told of runs done. Raises
    FaithfulnessError where the model can't be run from the site on.
    """
    of_document: dict[int, list[DocumentRun]] = {}
    for run in runs:
        of_document.setdefault(run.document, []).append(run)
    to_run = sorted(of_document)
    least_tokens = 0
    if next(model.parameters()).device.type == "cpu":
        least_tokens = ROWS_PER_THREAD * torch.get_num_threads()
    sums: dict[DocumentRun, RunSums] = {}
    spent = Spent()
    for batched in _batches([sample[i].document for i in to_run], batch_tokens, least_tokens):
        indices = [to_run[i] for i in batched]
        batch = DocumentBatch(model, site, [sample[i].document for i in indices])
        places = {document: place for place, document in enumerate(indices)}
        wanted = [(place, run) for i, place in places.items() for run in of_document[i]]
        longest = batch.rows.shape[1]
        n_at_once = max(1, batch_tokens // longest)
        n_least = min(n_at_once, -(-least_tokens // longest))
        for start in range(0, len(wanted), n_at_once):
            some = wanted[start : start + n_at_once]
            rows = [
                _rows_of(batch, place, run, sample[run.document], coefficients[run.document], fit)
                for place, run in some
            ]
            n_more = max(0, n_least - len(some))
            which = [place for place, _ in some]
            losses = batch.losses(
                which + which[-1:] * n_more, torch.stack(rows + rows[-1:] * n_more)
            )
            for row, (place, run) in enumerate(some):
                if run.replacement == "identity":
                    check_identity(batch, place, losses, row)
                sums[run] = _sums_of(batch, place, losses, row, run, coefficients[run.document])
            advance(len(some))
        spent += batch.spent
    return sums, spent


def _batches(
    documents: Sequence[TokenizedDocument], batch_tokens: int, least_tokens: int
) -> Iterator[list[int]]:
    if least_tokens:
        return same_length_batches(documents, batch_tokens, least_tokens)
    return length_sorted_batches(documents, batch_tokens)


def _rows_of(
    batch: DocumentBatch,
    place: int,
    run: DocumentRun,
    one: SampledDocument,
    coefficients: csr_matrix,
    fit: Fit,
) -> Tensor:
    """The batch's rows of a document, [longest, d], its own ones replaced."""
    first = one.document.n_special_prefix
    where = slice(first, first + one.document.n_rows)
    own = batch.rows[place, where]
    if run.feature is None:
        new = replacement_rows(run.replacement, own, one, coefficients, fit)
    else:
        new = rows_without(own, _strengths(coefficients, run.feature), fit.dictionary[run.feature])
    rows = batch.rows[place].clone()
    rows[where] = new
    return rows


def _sums_of(
    batch: DocumentBatch,
    place: int,
    losses: TokenLosses,
    row: int,
    run: DocumentRun,
    coefficients: csr_matrix,
) -> RunSums:
    is_counted = batch.is_predicted[place]
    base, replaced = batch.base.cross_entropy[place], losses.cross_entropy[row]
    n_active = at_active = None
    if run.feature is not None:
        strengths = torch.zeros(len(is_counted))
        strengths[batch.is_row[place]] = _strengths(coefficients, run.feature)
        is_active, is_counted = changeable(strengths, is_counted)
        n_active, at_active = int(is_active.sum()), float((replaced - base)[is_active].sum())
    return RunSums(
        n_tokens=int(is_counted.sum()),
        n_tokens_active=n_active,
        cross_entropy_base=float(base[is_counted].sum()),
        cross_entropy_replaced=float(replaced[is_counted].sum()),
        delta_at_active=at_active,
        kl_nats=float(losses.kl[row, is_counted].sum()),
    )


def _strengths(coefficients: csr_matrix, feature: int) -> Tensor:
    return torch.from_numpy(coefficients[:, [feature]].toarray()[:, 0])
