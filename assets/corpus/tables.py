"""The corpus stage's table: one row a document, and one a rejected row of the source."""

from __future__ import annotations

from assets.shared.schema import Column, Table, status_columns

DOCUMENTS = Table(
    name="documents",
    stage="corpus",
    description="Documents of a study's corpus in source order, then the rows that were rejected",
    columns=(
        Column("study", "VARCHAR", "Study whose corpus this is"),
        Column(
            "document_id",
            "VARCHAR",
            "First 16 hex digits of the text's sha256; of source and row for a rejected row",
        ),
        Column("source", "VARCHAR", "File name; inside a folder, the path from that folder"),
        Column(
            "source_row",
            "BIGINT",
            "Place in the source, from 1: the line of a JSONL file, the record of a CSV or Parquet "
            "file (header not counted), the item of a JSON file, 1 for a text file",
            minimum=1,
        ),
        Column(
            "text",
            "VARCHAR",
            "The document, without surrounding whitespace; NULL for a rejected row",
            nullable=True,
        ),
        Column(
            "n_characters",
            "BIGINT",
            "Length of the text; NULL where a rejected row has no readable text",
            unit="characters",
            nullable=True,
            minimum=0,
        ),
        Column(
            "minhash",
            "VARCHAR",
            "Smallest hash of the text's runs of three normalised words, 16 hex digits: of texts "
            "that share the share J of their runs it is equal with probability J, and documents "
            "where it is equal are never parted by halves of the corpus. NULL for a rejected row, "
            "and in rows from before 0.7.0",
            nullable=True,
        ),
        Column("concept", "VARCHAR", "Human-given theme, where known", nullable=True),
        Column("parent_concept", "VARCHAR", "Theme above the concept, where known", nullable=True),
        *status_columns("ok or rejected"),
    ),
    key=("study", "document_id"),
    partition_by=("study",),
)

TABLES = (DOCUMENTS,)
