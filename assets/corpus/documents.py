"""What reading a corpus gives: documents, rejected rows, and their frame for the lake.

Plain values; files are read in formats.py, rows are judged in validate.py.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import polars as pl

from assets.corpus.tables import DOCUMENTS
from assets.shared.word_runs import minhashes

ID_DIGITS = 16


class CorpusError(ValueError):
    """The corpus cannot be used as it is; the message names the file, the rows and the remedy."""


def document_id(text: str) -> str:
    """First 16 hex digits of the sha256 of `text` in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]


def rejected_row_id(source: str, source_row: int) -> str:
    """Id of a row without a usable text: it follows from where the row stands.

    The NUL bytes keep it apart from every document, because a text with NUL is rejected.
    """
    return document_id(f"rejected\0{source}\0{source_row}")


@dataclass(frozen=True)
class Document:
    """One usable text with its place in the source; `text` has no surrounding whitespace."""

    document_id: str
    source: str
    source_row: int
    text: str
    concept: str | None
    parent_concept: str | None


@dataclass(frozen=True)
class RejectedRow:
    """One row that is no document, and why; `n_characters` is None where no text was readable."""

    source: str
    source_row: int
    reason: str
    n_characters: int | None
    concept: str | None
    parent_concept: str | None


@dataclass(frozen=True)
class CorpusReading:
    """Everything read, in source order."""

    documents: tuple[Document, ...]
    rejected: tuple[RejectedRow, ...]


def documents_frame(reading: CorpusReading) -> pl.DataFrame:
    """Rows of the table `documents` without its partition column: documents, then rejected rows."""
    hashes = minhashes(document.text for document in reading.documents)
    rows = [
        {
            "document_id": document.document_id,
            "source": document.source,
            "source_row": document.source_row,
            "text": document.text,
            "n_characters": len(document.text),
            "minhash": minhash,
            "concept": document.concept,
            "parent_concept": document.parent_concept,
            "status": "ok",
            "reason": None,
        }
        for document, minhash in zip(reading.documents, hashes, strict=True)
    ] + [
        {
            "document_id": rejected_row_id(row.source, row.source_row),
            "source": row.source,
            "source_row": row.source_row,
            "text": None,
            "n_characters": row.n_characters,
            "minhash": None,
            "concept": row.concept,
            "parent_concept": row.parent_concept,
            "status": "rejected",
            "reason": row.reason,
        }
        for row in reading.rejected
    ]
    schema = {
        column.name: column.polars_type
        for column in DOCUMENTS.columns
        if column.name not in DOCUMENTS.partition_by
    }
    return pl.DataFrame(rows, schema=schema, orient="row")
