"""Runs of documents as rows of `faithfulness_documents`, and the sums of rows made before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields

import polars as pl

from assets.faithfulness.runs import DocumentRun, RunSums
from assets.faithfulness.sample import SampledDocument
from assets.faithfulness.tables import FAITHFULNESS_DOCUMENTS
from assets.shared.row_reuse import reusable_rows

_SUMS = [field.name for field in fields(RunSums)]


def known_sums(previous: pl.DataFrame, fingerprints: Iterable[str]) -> dict[str, RunSums]:
    """Sums by fingerprint, of those that rows of the table from before carry."""
    found = reusable_rows(previous, fingerprints)
    return {
        made_from: RunSums(**rows.select(_SUMS).row(0, named=True))
        for made_from, rows in found.items()
    }


def documents_frame(
    runs: Sequence[DocumentRun],
    sample: Sequence[SampledDocument],
    feature_ids: Sequence[int],
    fingerprints: Mapping[DocumentRun, str],
    sums: Mapping[str, RunSums],
) -> pl.DataFrame:
    """Rows of the table, one a run, in the order of `runs`, without site and fit."""
    rows = [
        {
            "document_id": sample[run.document].document.document_id,
            "replacement": run.replacement,
            "feature_id": None if run.feature is None else feature_ids[run.feature],
            **asdict(sums[fingerprints[run]]),
            "row_fingerprint": fingerprints[run],
        }
        for run in runs
    ]
    schema = {
        c.name: c.polars_type
        for c in FAITHFULNESS_DOCUMENTS.columns
        if c.name not in FAITHFULNESS_DOCUMENTS.partition_by
    }
    return pl.DataFrame(rows, schema=schema)
