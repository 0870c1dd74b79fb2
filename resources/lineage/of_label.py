"""Label ← LLM call (prompt) ← contexts shown (sentence, file and row), promoted tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from assets.corpus.tables import DOCUMENTS
from assets.evidence.tables import CONTEXTS, VOCAB_PROJECTION
from assets.labels.evidence_shown import contrast_contexts, shown_contexts
from assets.labels.tables import LABELS
from resources.lineage.provenance import Made
from resources.lineage.step import FeatureRows, Step

N_TOKENS = 10


def label_steps(rows: FeatureRows) -> list[Step]:
    """A step for each kind of label; evidence that two of them read stands under the first."""
    made = rows.made(LABELS)
    labels = rows.rows(LABELS)
    # Prompts of the other style, words, have no place for near misses.
    has_contrast = any((row["prompt_name"] or "").endswith("_contexts") for row in labels)
    contexts = _contexts_step(rows, made, has_contrast)
    promoted, of_minus = (_promoted_step(rows, sign) for sign in "+-")
    evidence = {
        "input": (contexts,),
        "output": (promoted,),
        "output_minus": (of_minus,),
        "combined": (contexts, promoted),
        "token_summary": (contexts,),
    }
    told: list[Step] = []
    steps: list[Step] = []
    for row in sorted(labels, key=lambda row: list(evidence).index(row["kind"])):
        said = repr(row["label"]) if row["status"] == "ok" else f"{row['status']}, {row['reason']}"
        sources = [
            replace(source, text="see above", sources=()) if source in told else source
            for source in evidence[row["kind"]]
        ]
        told += evidence[row["kind"]]
        calls = rows.calls([row["request_hash"]], made)
        names = (
            *("kind", "label", "status", "reason", "request_hash"),
            *("candidates", "pmi_nats"),
        )
        steps.append(
            Step(
                "label",
                f"{row['kind']}: {said}",
                {name: row.get(name) for name in names},
                made,
                (*calls, *sources),
            )
        )
    return steps or [Step("label", "none: labels was not made for this feature", made=made)]


def _contexts_step(rows: FeatureRows, labels: Made, has_contrast: bool) -> Step:
    """The contexts that the labeller was shown, each with the file and row of its document."""
    frame = rows.lake.frame(CONTEXTS, {**rows.key.partition, "feature_id": rows.key.feature_id})
    limit = labels.parts.get("settings.labels.n_contexts_shown")
    shown = shown_contexts(frame, int(limit) if limit else len(frame)).get(rows.key.feature_id, [])
    n_contrast = int(labels.parts.get("settings.labels.n_near_misses_shown") or 0)
    if has_contrast:
        shown = [*shown, *contrast_contexts(frame, n_contrast).get(rows.key.feature_id, [])]
    documents = {
        row["document_id"]: row
        for row in rows.lake.rows(
            DOCUMENTS,
            {"study": rows.key.study, "status": "ok"},
            any_of={"document_id": sorted({row["document_id"] for row in shown})},
        )
    }
    sentences = tuple(_context_step(row, documents.get(row["document_id"])) for row in shown)
    said = f"{len(shown)} shown" if limit else f"{len(shown)} that may have been shown"
    return Step("contexts", said, {"n_shown": len(shown)}, rows.made(CONTEXTS), sentences)


def _context_step(row: Mapping[str, Any], document: Mapping[str, Any] | None) -> Step:
    if document is None:
        origin = f"document {row['document_id']}, not in the corpus (any more)"
    else:
        origin = f"document {row['document_id']}, {document['source']} row {document['source_row']}"
    names = ("kind", "rank_in_kind", "coefficient", "peak_token", "marked_text", "document_id")
    facts = {name: row[name] for name in names}
    facts |= {
        name: None if document is None else document[name]
        for name in ("source", "source_row", "concept")
    }
    return Step(
        "context", f"{row['kind']} {row['coefficient']:.3g} {row['marked_text']!r}: {origin}", facts
    )


def _promoted_step(rows: FeatureRows, sign: str) -> Step:
    tokens = [row["token"] for row in rows.rows(VOCAB_PROJECTION, sign=sign)]
    return Step(
        "promoted_tokens",
        ", ".join(repr(token) for token in tokens[:N_TOKENS]) or "none",
        {"tokens": tokens},
        rows.made(VOCAB_PROJECTION),
    )
