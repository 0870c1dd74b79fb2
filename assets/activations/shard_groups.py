"""Which documents make a shard: consecutive ones, cut where the documents themselves say.

A group closes after a document whose hash falls below a threshold (content-defined chunking:
Muthitacharoen, Chen, Mazieres 2001, "A Low-bandwidth Network File System", section 3.1). So a
document added or removed changes its own group and leaves the others, and their files, as they
are; counted groups would all shift. With T = `shard_tokens`, a document of r rows closes its group
with probability r / (T/2), from T/2 rows on, and any document does at 2 T: T rows on average.

What is captured of a group is capture.py; which documents were captured before is
captured_documents.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from torch import Tensor

from assets.activations.tokenization import TokenizedDocument

HASH_BYTES = 16


def document_hash(document: TokenizedDocument) -> bytes:
    """16 bytes of SHA-256 over the token ids and how many of them are the special prefix.

    The document's id is left out: a renamed document has the same activations.
    """
    numbers = np.array([document.n_special_prefix, *document.token_ids], dtype="<i8")
    return hashlib.sha256(numbers.tobytes()).digest()[:HASH_BYTES]


@dataclass(frozen=True)
class DocumentGroup:
    """Documents of one shard, in row order, and their hashes."""

    documents: tuple[TokenizedDocument, ...]
    hashes: tuple[bytes, ...]

    @cached_property
    def n_rows(self) -> int:
        return sum(document.n_rows for document in self.documents)

    @cached_property
    def first_rows(self) -> dict[bytes, list[int]]:
        """For each hash, the rows of the group at which a document with it begins."""
        first_rows: dict[bytes, list[int]] = {}
        row = 0
        for document, key in zip(self.documents, self.hashes, strict=True):
            first_rows.setdefault(key, []).append(row)
            row += document.n_rows
        return first_rows

    @cached_property
    def distinct(self) -> dict[bytes, TokenizedDocument]:
        """The first document of each hash."""
        distinct: dict[bytes, TokenizedDocument] = {}
        for document, key in zip(self.documents, self.hashes, strict=True):
            distinct.setdefault(key, document)
        return distinct

    def place(
        self,
        matrix: Float[Tensor, "n_rows width"],
        key: bytes,
        rows: Float[Tensor, "n_document_rows width"],
    ) -> None:
        """Writes a document's rows into the group's matrix wherever the document stands."""
        for first_row in self.first_rows[key]:
            matrix[first_row : first_row + len(rows)] = rows


def group_documents(
    documents: Sequence[TokenizedDocument], shard_tokens: int
) -> Iterator[DocumentGroup]:
    """The groups of `documents`, in order; see the module's docstring.

    Documents without a token of their own have no rows and are left out.
    """
    least, most = shard_tokens / 2, 2 * shard_tokens
    group: list[TokenizedDocument] = []
    hashes: list[bytes] = []
    n_rows = 0
    for document in documents:
        if not document.n_rows:
            continue
        key = document_hash(document)
        group.append(document)
        hashes.append(key)
        n_rows += document.n_rows
        is_cut = int.from_bytes(key[:8], "big") / 2**64 < document.n_rows / least
        if n_rows >= most or (n_rows >= least and is_cut):
            yield DocumentGroup(tuple(group), tuple(hashes))
            group, hashes, n_rows = [], [], 0
    if group:
        yield DocumentGroup(tuple(group), tuple(hashes))
