"""The documents a fit was made of, so that the next run can say what is new, gone or as it was.

    changed = Σ over documents of |tokens the fit would use now - tokens it was fitted on|

A document is known by its id and a hash of its activation rows. An edited text has another id;
another model, tokenization or number type gives other rows under the same id: both are one document
gone and one new. A token that a threshold moves into the fit or out of it counts as well. Documents
that come back count no more: the sum is over what stands now against what was fitted, however many
projections lie between.

Only documents whose rows are the same to the byte keep their coefficients. What a change leads to
is in refit.py.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from assets.factorization.comparison_tables import FIT_DOCUMENTS

KEY = ("document_id", "rows_hash")
SCHEMA = {
    column.name: column.polars_type
    for column in FIT_DOCUMENTS.columns
    if column.name not in FIT_DOCUMENTS.partition_by
}


@dataclass(frozen=True)
class FitChange:
    """Tokens of the fit new or gone since its dictionary was fitted on `n_fitted` of them.

    `obstacle` says why the dictionary can't stay, whatever the share; None where it can.
    """

    n_changed: int
    n_fitted: int
    obstacle: str | None = None

    @property
    def share(self) -> float:
        """Of the tokens it was fitted on; infinite where their number is not known."""
        return self.n_changed / self.n_fitted if self.n_fitted else math.inf


def documents_seen(
    documents: Sequence[str],
    is_fit: Bool[Tensor, " n_tokens"],
    rows: Iterable[Float[Tensor, "n_rows d"]],
    concepts: Sequence[str | None] | None = None,
) -> pl.DataFrame:
    """One row a document, in token order, as `fit_documents` declares them for a fit just made.

    `documents` names each token's, `rows` are the activations in token order, in pieces of any
    size; `concepts` (a supervised method's) join the hash. Raises ValueError where a document's
    tokens do not stand together.
    """
    starts = _first_rows(documents)
    counts = np.diff([*starts, len(documents)])
    used = np.add.reduceat(is_fit.cpu().numpy().astype(np.int64), starts)
    extra = [None] * len(starts) if concepts is None else [concepts[row] for row in starts]
    return pl.DataFrame(
        {
            "document_id": [documents[row] for row in starts],
            "rows_hash": _hashes(counts.tolist(), rows, extra),
            "first_row": starts,
            "n_tokens": counts,
            "n_tokens_fitted": used,
        },
        schema=SCHEMA,
    )


def fit_change(
    before: pl.DataFrame, now: pl.DataFrame, concepts: tuple[set[str], set[str]] | None = None
) -> FitChange:
    """What changed since the fit of `before`, rows of `fit_documents`; `now` is documents_seen.

    `concepts` are those the dictionary has a feature for, and those it would have now (a supervised
    method's). Its dictionary goes when they differ, and when a document it was fitted on is to be
    measured on: its scores would be those of its own training.
    """
    both = before.join(now, on=KEY, how="full", suffix="_now", coalesce=True).with_columns(
        pl.col("n_tokens_fitted", "n_tokens_fitted_now").fill_null(0)
    )
    fitted, wanted = pl.col("n_tokens_fitted"), pl.col("n_tokens_fitted_now")
    obstacle = None
    if before.is_empty():
        obstacle = "which documents it was fitted on is not recorded"
    elif concepts is not None:
        is_here = pl.col("first_row_now").is_not_null()
        n_measured = both.filter(is_here & (fitted > 0) & (wanted == 0)).height
        known, present = concepts
        if known != present:
            named = ", ".join(sorted(known ^ present)[:3])
            obstacle = f"the concepts are others ({named})"
        elif n_measured:
            obstacle = f"documents it was fitted on are now to be measured on ({n_measured})"
    return FitChange(
        n_changed=int(both.select((wanted - fitted).abs().sum()).item()),
        n_fitted=int(before["n_tokens_fitted"].sum()),
        obstacle=obstacle,
    )


def same_rows(before: pl.DataFrame, now: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the documents that are as they were: where they stand now, and where they stood."""
    kept = now.join(
        before.filter(pl.col("first_row").is_not_null()), on=KEY, suffix="_before"
    ).sort("first_row")
    counts = kept["n_tokens"].to_numpy()
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    places = (
        np.repeat(kept[name].to_numpy(), counts) + within
        for name in ("first_row", "first_row_before")
    )
    now_rows, before_rows = places
    return now_rows, before_rows


def projected_documents(before: pl.DataFrame, now: pl.DataFrame) -> pl.DataFrame:
    """Rows of `fit_documents` after a projection: documents of now, and fitted ones that are gone.

    `n_tokens_fitted` stays what it was at the fit; 0 for documents that came later.
    """
    fitted = before.select(*KEY, "n_tokens_fitted")
    here = (
        now.drop("n_tokens_fitted")
        .join(fitted, on=KEY, how="left", maintain_order="left")
        .with_columns(pl.col("n_tokens_fitted").fill_null(0))
    )
    gone = before.filter(pl.col("n_tokens_fitted") > 0).join(now, on=KEY, how="anti")
    return pl.concat(
        [here, gone.with_columns(pl.lit(None, pl.Int64()).alias("first_row"))],
        how="diagonal",
    ).select(now.columns)


def _first_rows(documents: Sequence[str]) -> list[int]:
    starts = [row for row, name in enumerate(documents) if row == 0 or name != documents[row - 1]]
    named = [documents[row] for row in starts]
    if len(set(named)) < len(named):
        twice = next(name for name in named if named.count(name) > 1)
        raise ValueError(
            f"tokens of document {twice!r} stand in {named.count(twice)} places of the site; "
            "expected one: materialize the site's activations again"
        )
    return starts


def _hashes(
    counts: Sequence[int],
    rows: Iterable[Float[Tensor, "n_rows d"]],
    extra: Sequence[str | None],
) -> list[str]:
    """Hash (16 hex digits) of each document's rows and of what stands beside them."""
    digests = [hashlib.sha256() for _ in counts]
    ends = np.cumsum(counts)
    begin = 0
    for piece in rows:
        values = piece if piece.dtype == torch.float64 else piece.float()
        values = values.detach().cpu().contiguous().numpy()
        end = begin + len(values)
        while begin < min(end, ends[-1]):
            document = int(np.searchsorted(ends, begin, side="right"))
            stop = min(end, int(ends[document]))
            first = begin - end + len(values)
            digests[document].update(values[first : first + stop - begin].tobytes())
            begin = stop
        begin = end
    if begin != ends[-1]:
        raise ValueError(
            f"{begin} activation rows found for {ends[-1]} tokens; expected one each: materialize "
            "the site's activations again"
        )
    for digest, more in zip(digests, extra, strict=True):
        if more is not None:
            digest.update(f"|{more}".encode())
    return [digest.hexdigest()[:16] for digest in digests]
