"""The bundled weekdays: schema, variety, and each sentence names its concept after other words."""

import re
from collections import Counter

from assets.corpus.bundled_corpus import BUNDLED_FOLDER, read_bundled_rows, variety_problems, words
from assets.corpus.config import CorpusConfig
from assets.corpus.read import read_corpus

ROWS = read_bundled_rows(BUNDLED_FOLDER / "weekdays.jsonl")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def test_seven_weekdays_and_other_concepts_to_tell_them_from():
    per_concept = Counter((row.parent_concept, row.concept) for row in ROWS)
    assert {key for key in per_concept if key[0] == "weekday"} == {("weekday", d) for d in DAYS}
    assert all(per_concept["weekday", day] == 14 for day in DAYS)
    others = {key: n for key, n in per_concept.items() if key[0] != "weekday"}
    assert {parent for parent, _ in others} == {"month", "season", "meal", "city"}
    assert set(others.values()) == {4}


def test_each_sentence_names_its_concept_alone_and_later_than_its_first_word():
    concepts = {row.concept for row in ROWS}
    for row in ROWS:
        named = [word for word in re.findall(r"\w+", row.text) if word in concepts]
        assert named == [row.concept], row.text
        assert not row.text.startswith(row.concept), row.text


def test_sentences_are_distinct_and_vary():
    assert len({" ".join(words(row.text)) for row in ROWS}) == len(ROWS)
    assert variety_problems(ROWS) == []


def test_a_study_reads_it_by_name():
    reading = read_corpus(CorpusConfig(path="bundled:weekdays"))
    assert len(reading.documents) == len(ROWS) and reading.rejected == ()
