"""Reads a corpus: finds its files, takes their rows apart, judges each row, keeps the order.

Equal input gives equal output: files come sorted by name, rows in file order, and of equal texts
the first one stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from assets.corpus.config import CONCEPT_FIELD_ALIASES, CorpusConfig
from assets.corpus.documents import (
    CorpusError,
    CorpusReading,
    Document,
    RejectedRow,
    document_id,
)
from assets.corpus.formats import RawRow, raw_rows
from assets.corpus.sources import find_source_files
from assets.corpus.validate import concept_name, row_problem

MAX_ROWS_SHOWN = 5


def read_corpus(config: CorpusConfig, study_folder: Path | None = None) -> CorpusReading:
    """Documents and rejected rows of the corpus that `config` names.

    A relative path starts at `study_folder`, then at the working folder. Raises CorpusError for a
    corpus that cannot be read, that has bad rows while `bad_rows` is "error", that lacks a
    concept asked for, or that has no usable document.
    """
    reading = _judge(_all_rows(config, study_folder), config)
    if reading.rejected and config.bad_rows == "error":
        raise CorpusError(
            f"corpus {config.path}: {_listed(reading.rejected)}. Mend them, or set "
            "corpus.bad_rows: reject to go on without them"
        )
    _check_concepts(reading, config)
    if not reading.documents:
        found = _listed(reading.rejected) if reading.rejected else "no row at all"
        raise CorpusError(
            f"corpus {config.path}: found no usable document ({found}); expected at least one text"
        )
    return reading


def _all_rows(config: CorpusConfig, study_folder: Path | None) -> Iterator[RawRow]:
    for file in find_source_files(config, study_folder):
        yield from raw_rows(file, config)


def _judge(rows: Iterator[RawRow], config: CorpusConfig) -> CorpusReading:
    documents: list[Document] = []
    rejected: list[RejectedRow] = []
    first_of: dict[str, Document] = {}
    per_concept: Counter[str] = Counter()
    for row in rows:
        if len(documents) == config.max_documents:
            break
        concept, parent_concept = concept_name(row.concept), concept_name(row.parent_concept)
        if _is_left_out(row, concept, per_concept, config):
            continue
        text = row.text.strip() if isinstance(row.text, str) else ""
        reason = row_problem(row, config.max_characters)
        if reason is None:
            identity = document_id(text)
            first = first_of.get(identity)
            if first is None:
                document = Document(
                    identity, row.source, row.source_row, text, concept, parent_concept
                )
                documents.append(document)
                first_of[identity] = document
                if concept is not None:
                    per_concept[concept] += 1
                continue
            reason = f"repeats the text of {first.source}, row {first.source_row}"
        rejected.append(
            RejectedRow(
                source=row.source,
                source_row=row.source_row,
                reason=reason,
                n_characters=len(text) if isinstance(row.text, str) else None,
                concept=concept,
                parent_concept=parent_concept,
            )
        )
    return CorpusReading(documents=tuple(documents), rejected=tuple(rejected))


def _is_left_out(
    row: RawRow, concept: str | None, per_concept: Counter[str], config: CorpusConfig
) -> bool:
    if concept is not None and per_concept[concept] == config.max_documents_per_concept:
        return True
    if config.concepts is None or concept in config.concepts:
        return False
    # A row whose concept could not be read may be of any, so it stays to be reported.
    is_unread = row.problem is not None or not isinstance(row.concept, str | None)
    return concept is not None or not is_unread


def _check_concepts(reading: CorpusReading, config: CorpusConfig) -> None:
    found = {document.concept for document in reading.documents}
    is_cut = len(reading.documents) == config.max_documents
    missing = [concept for concept in config.concepts or () if concept not in found]
    if missing and not is_cut:
        raise CorpusError(
            f"corpus {config.path}: no usable document of the concepts {', '.join(missing)}; "
            "mend corpus.concepts (names are case-sensitive) or corpus.concept_field"
        )
    is_named = config.concept_field not in CONCEPT_FIELD_ALIASES
    if is_named and reading.documents and found == {None}:
        raise CorpusError(
            f"corpus {config.path}: corpus.concept_field is {config.concept_field!r}, but no "
            "document has a concept there; mend its name, or leave it out for a corpus without "
            "concepts"
        )


def _listed(rejected: Sequence[RejectedRow]) -> str:
    shown = "; ".join(
        f"{row.source}, row {row.source_row}: {row.reason}" for row in rejected[:MAX_ROWS_SHOWN]
    )
    rest = len(rejected) - MAX_ROWS_SHOWN
    word = "row" if len(rejected) == 1 else "rows"
    return f"{len(rejected)} bad {word}: {shown}" + (f"; and {rest} more" if rest > 0 else "")
