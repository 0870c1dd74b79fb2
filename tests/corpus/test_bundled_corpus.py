"""The bundled corpus keeps its schema, its size and its variety; the check catches a template."""

import re
from collections import Counter, defaultdict

import pytest

from assets.corpus.bundled_corpus import (
    BUNDLED_CONCEPTS,
    BundledRow,
    read_bundled_rows,
    variety_problems,
    words,
)
from assets.corpus.config import CorpusConfig
from assets.corpus.documents import documents_frame
from assets.corpus.read import read_corpus
from assets.corpus.tables import DOCUMENTS

NAMES_THAT_STAY_HOME = [
    *("Monday", "Friday", "January", "December", "red", "blue", "green"),
    *("Paris", "Tokyo", "sushi", "chess", "football", "wedding"),
]


@pytest.fixture(scope="module")
def rows() -> list[BundledRow]:
    return read_bundled_rows()


def test_every_concept_has_enough_distinct_sentences(rows):
    per_concept = Counter(row.concept for row in rows)
    assert len(per_concept) >= 24
    assert min(per_concept.values()) >= 20
    folded = [" ".join(words(row.text)) for row in rows]
    assert len(set(folded)) == len(rows)


def test_every_concept_has_one_parent_and_several_parents_group(rows):
    parents = defaultdict(set)
    for row in rows:
        parents[row.concept].add(row.parent_concept)
    assert all(len(of_concept) == 1 for of_concept in parents.values())
    group_sizes = Counter(next(iter(of_concept)) for of_concept in parents.values())
    assert sum(size >= 2 for size in group_sizes.values()) >= 3
    assert not set(parents) & set(group_sizes)


def test_sentences_vary_and_have_a_natural_length(rows):
    assert variety_problems(rows) == []
    lengths = [len(words(row.text)) for row in rows]
    assert min(lengths) >= 8
    assert max(lengths) <= 30
    openings = Counter(tuple(words(row.text)[:3]) for row in rows)
    assert openings.most_common(1)[0][1] <= 3
    first_words = Counter(words(row.text)[0] for row in rows)
    assert first_words.most_common(1)[0][1] <= 0.12 * len(rows)


def test_concept_words_stay_within_their_concept(rows):
    strays = [
        (name, row.text)
        for name in NAMES_THAT_STAY_HOME
        for row in rows
        if re.search(rf"\b{name}s?\b", row.text, re.IGNORECASE)
        and not row.concept.lower().startswith(name.lower())
    ]
    assert strays == []


def test_a_concept_is_not_always_named(rows):
    """Some sentences imply their concept, so that a feature is not a single token's."""
    for concept in ("Monday", "red", "sushi", "Paris", "football", "chess", "weddings"):
        name = concept.rstrip("s")
        texts = [row.text for row in rows if row.concept == concept]
        assert any(name.lower() not in text.lower() for text in texts), concept


def test_any_beginning_of_the_file_is_balanced(rows):
    concepts = {row.concept for row in rows}
    for n_rows in (len(concepts), 5 * len(concepts)):
        per_concept = Counter(row.concept for row in rows[:n_rows])
        assert set(per_concept) == concepts
        assert max(per_concept.values()) == min(per_concept.values())


def test_it_is_read_whole_by_default(rows):
    reading = read_corpus(CorpusConfig())
    assert [document.text for document in reading.documents] == [row.text for row in rows]
    assert reading.rejected == ()
    frame = DOCUMENTS.conform(documents_frame(reading), {"study": "demo"})
    assert frame["source"].unique().to_list() == [BUNDLED_CONCEPTS.name]


def test_the_variety_check_catches_a_template():
    template = [
        BundledRow(text=f"I bought a {colour} hat today", concept="hats", parent_concept="clothes")
        for colour in ("large", "small", "woollen", "cheap", "silly", "second-hand")
    ]
    problems = variety_problems(template)
    assert any("'i bought'" in problem for problem in problems)
    assert any("Jaccard" in problem for problem in problems)


@pytest.mark.parametrize(
    "line",
    [
        '{"text": "A sentence that is long enough.", "concept": "red"}',
        '{"text": "too short", "concept": "red", "parent_concept": "colours"}',
        '{"text": "A sentence that is long enough.", "concept": 3, "parent_concept": "colours"}',
        '{"text": "A sentence that is long enough.", "concept": "red", "parent_concept": "colours",'
        ' "label": "red"}',
        "not json",
    ],
)
def test_the_schema_check_names_the_line(tmp_path, line):
    path = tmp_path / "broken.jsonl"
    good = '{"text": "A sentence that is long enough.", "concept": "red", "parent_concept": "hue"}'
    path.write_text(f"{good}\n{line}\n")
    with pytest.raises(ValueError, match=r"broken\.jsonl, line 2"):
        read_bundled_rows(path)
