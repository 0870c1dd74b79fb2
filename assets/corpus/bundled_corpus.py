"""The bundled corpus `bundled:concepts` and the check of its schema and variety.

Sentences written for this project, grouped by concept and parent concept. Its rows go round the
concepts in turn, so that the first n rows hold nearly equally many of each concept.

Variety matters because a feature should fire on a concept, not on a template: no two sentences of
a concept may start alike too often, or share most of their words.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from assets.corpus.sources import BUNDLED_FOLDER

BUNDLED_CONCEPTS = BUNDLED_FOLDER / "concepts.jsonl"
MAX_SHARED_OPENING = 0.2
MAX_MEAN_JACCARD = 0.12


class BundledRow(BaseModel):
    """The schema of one line of the bundled corpus."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    text: str = Field(min_length=20, max_length=300)
    concept: str = Field(min_length=2, pattern=r"^\S+$")
    parent_concept: str = Field(min_length=3, pattern=r"^[a-z]+$")


def read_bundled_rows(path: Path = BUNDLED_CONCEPTS) -> list[BundledRow]:
    """Every line as a row; ValueError naming file and line where one breaks the schema."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            rows.append(BundledRow.model_validate_json(line))
        except ValidationError as error:
            raise ValueError(f"{path.name}, line {number}: {error}") from error
    return rows


def words(text: str) -> list[str]:
    """Lower-case words and numbers of `text`, in order."""
    return re.findall(r"\w+", text.lower())


def variety_problems(rows: Sequence[BundledRow]) -> list[str]:
    """What makes `rows` too uniform, in words, one item a concept and measure; empty if nothing.

    Measures per concept: the share of sentences with the commonest first two words (at most
    20 %), and the mean Jaccard index of two sentences, words in both / words in either (at most
    0.12).
    """
    by_concept: dict[str, list[list[str]]] = defaultdict(list)
    for row in rows:
        by_concept[row.concept].append(words(row.text))
    problems = []
    for concept, sentences in by_concept.items():
        opening, count = Counter(tuple(s[:2]) for s in sentences).most_common(1)[0]
        if count > max(1, MAX_SHARED_OPENING * len(sentences)):
            problems.append(f"{concept}: {count} sentences start with {' '.join(opening)!r}")
        overlaps = [
            len(set(a) & set(b)) / len(set(a) | set(b)) for a, b in combinations(sentences, 2)
        ]
        if overlaps and (mean := sum(overlaps) / len(overlaps)) > MAX_MEAN_JACCARD:
            problems.append(f"{concept}: mean Jaccard index {mean:.2f} of two sentences")
    return problems
