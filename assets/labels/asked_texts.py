"""Which texts the judge is asked about to score a label: contexts of its feature, and how marked.

Detection (delphi; Paulo et al., arXiv 2410.13928) shows held-out contexts, `random` negatives
(documents in which the feature does not fire) and `hard` ones (in which a similar feature fires
instead).
Fuzzing (the same) shows held-out contexts with the word marked at which they peak, with another
word of them marked that is not active (`random`), and hard negatives with the word marked at which
the similar feature peaks (`hard`). It is one word everywhere, unlike delphi's all active ones:
where the similar feature is active beside its peak is not known, and the number of marks must not
tell the sorts apart. A context without such a word is left out and counted (`skipped_contexts`).

No context asked about was shown to the labeller. What is asked of the texts is score_questions.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import polars as pl

from assets.evidence.repeated_windows import SeenWindows
from assets.labels.config import LabelsConfig, LlmConfig, ScoreMethod
from assets.labels.evidence_shown import SHOWN_KINDS, context_line
from assets.labels.marked_contexts import MarkedContext
from assets.labels.scored_labels import ScoredLabel, scored_labels

Sample = Literal["positive", "random", "hard", "prior"]

KIND_OF_SAMPLE = {"positive": "held_out", "random": "negative", "hard": "hard_negative"}


def samples_of(method: ScoreMethod, config: LabelsConfig) -> tuple[Sample, ...]:
    """The sorts of negatives that labels, shuffled ones too, are scored against."""
    return ("random",) if method == "simulation" else config.score_negatives


def contexts_by_sample(
    contexts: pl.DataFrame, n: int
) -> dict[int, dict[str, list[Mapping[str, Any]]]]:
    """Feature → sort of sample → its first `n` contexts."""
    sample_of = {kind: sample for sample, kind in KIND_OF_SAMPLE.items()}
    ordered = contexts.filter(pl.col("kind").is_in(list(sample_of))).sort(
        "feature_id", "kind", "rank_in_kind"
    )
    found: dict[int, dict[str, list[Mapping[str, Any]]]] = {}
    for row in ordered.iter_rows(named=True):
        rows = found.setdefault(row["feature_id"], {}).setdefault(sample_of[row["kind"]], [])
        if len(rows) < n:
            rows.append(row)
    return found


def texts_of(
    method: ScoreMethod,
    one: ScoredLabel,
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    config: LabelsConfig,
) -> Iterator[tuple[Sample, int, Mapping[str, Any], str | None]]:
    """Sort of sample, number within it, context and text of every text to ask about.

    The text is None where no word of the context can be marked.
    """
    for sample in ("positive", *samples_of(method, config)):
        # Fuzzing's random negatives are the held-out contexts again, otherwise marked.
        source = "positive" if (method, sample) == ("fuzzing", "random") else sample
        for pair, row in enumerate(rows.get(source, ())):
            if method == "fuzzing":
                text = _fuzzed(sample, one, row, config)
            else:
                text = context_line(row, config.max_context_words, is_marked=False)
            yield sample, pair, row, text


def skipped_contexts(
    labels: pl.DataFrame,
    contexts: pl.DataFrame,
    config: LabelsConfig,
    *,
    llm: LlmConfig | None = None,
) -> Counter[tuple[ScoredLabel, Sample]]:
    """How many contexts of a label and sort fuzzing cannot ask about: no word of them to mark."""
    if "fuzzing" not in config.score_methods_for(llm):
        return Counter()
    judged = contexts_by_sample(contexts, config.n_held_out)
    return Counter(
        (one, sample)
        for one in scored_labels(labels, config)
        for sample, _, _, text in texts_of("fuzzing", one, judged.get(one.feature_id, {}), config)
        if text is None
    )


def check_disjoint(contexts: pl.DataFrame) -> None:
    """Raise ValueError where a document was shown to the labeller, or where a window repeats one
    that was (evidence/repeated_windows.py): a score on it says nothing.
    """
    keys = ["feature_id", "document_id"]
    kept = contexts.filter(pl.col("kind").is_in(list(KIND_OF_SAMPLE.values()))).select(keys)
    shown = contexts.filter(pl.col("kind").is_in(SHOWN_KINDS)).select(keys)
    both = kept.join(shown, on=keys, how="semi").unique()
    if len(both):
        feature_id, document_id = both.row(0)
        raise ValueError(
            f"{len(both)} documents to score labels on were shown to the labeller too (feature "
            f"{feature_id}, document {document_id}); the evidence stage must keep the kinds of "
            "contexts disjoint"
        )
    _check_words(contexts)


def _check_words(contexts: pl.DataFrame) -> None:
    seen: dict[int, SeenWindows] = {}
    shown = contexts.filter(pl.col("kind").is_in(SHOWN_KINDS)).select("feature_id", "text")
    for feature_id, text in shown.iter_rows():
        seen.setdefault(feature_id, SeenWindows()).add(text)
    kept = contexts.filter(pl.col("kind").is_in(list(KIND_OF_SAMPLE.values())))
    repeats = [
        row
        for row in kept.iter_rows(named=True)
        if row["feature_id"] in seen and seen[row["feature_id"]].has_repeat(row["text"])
    ]
    if repeats:
        one = repeats[0]
        raise ValueError(
            f"{len(repeats)} contexts to score labels on repeat the words of one that was shown to "
            f"the labeller (feature {one['feature_id']}, {one['kind']} {one['rank_in_kind']}, "
            f"document {one['document_id']}: {one['text'].strip()[:80]!r}); expected none in the "
            "table contexts: materialize `contexts` again"
        )


def _fuzzed(
    sample: Sample, one: ScoredLabel, row: Mapping[str, Any], config: LabelsConfig
) -> str | None:
    context = MarkedContext(row, config.max_context_words)
    peak = context.peak
    if sample != "hard" and peak not in context.active:
        return None
    if sample == "random":
        words = context.others(1, (config.seed, one.feature_id, row["document_id"]))
    else:
        words = [] if peak is None else [peak]
    return context.marked(words) if words else None
