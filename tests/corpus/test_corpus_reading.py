"""Paths, caps, filters, ids and fingerprints."""

import hashlib
import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from assets.corpus.config import CorpusConfig
from assets.corpus.documents import CorpusError, document_id, documents_frame
from assets.corpus.read import read_corpus
from assets.corpus.sources import corpus_fingerprint, list_source_files
from assets.corpus.tables import DOCUMENTS, TABLES


def write(path, texts, concepts="abc"):
    lines = [
        json.dumps({"text": text, "concept": concepts[i % len(concepts)]})
        for i, text in enumerate(texts)
    ]
    path.write_text("\n".join(lines))
    return path


def test_a_relative_path_starts_at_the_study_then_at_the_working_folder(tmp_path, monkeypatch):
    study, here = tmp_path / "studies", tmp_path / "here"
    study.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    config = CorpusConfig(path="c.jsonl")
    write(here / "c.jsonl", ["From the working folder."])
    assert read_corpus(config, study).documents[0].text == "From the working folder."
    write(study / "c.jsonl", ["From the study folder."])
    assert read_corpus(config, study).documents[0].text == "From the study folder."
    assert read_corpus(config).documents[0].text == "From the working folder."
    assert list_source_files(config, study) == [study / "c.jsonl"]


def test_a_missing_path_names_itself_what_is_there_and_what_to_do(tmp_path):
    write(tmp_path / "other.jsonl", ["x"])
    with pytest.raises(CorpusError) as error:
        read_corpus(CorpusConfig(path="no_folder/missing.jsonl"), tmp_path)
    message = str(error.value)
    for part in ("no_folder/missing.jsonl", str(tmp_path), "other.jsonl", "mend corpus.path"):
        assert part in message


def test_an_unknown_bundled_corpus_names_those_there_are():
    with pytest.raises(
        CorpusError, match=r"no bundled corpus 'x'; expected one of bundled:concepts"
    ):
        read_corpus(CorpusConfig(path="bundled:x"))


def test_caps_keep_the_first_documents(tmp_path):
    texts = [f"Text number {i}." for i in range(12)]
    config = CorpusConfig(path=str(write(tmp_path / "c.jsonl", texts)))
    first = read_corpus(config.model_copy(update={"max_documents": 5}))
    assert [d.text for d in first.documents] == texts[:5]
    even = read_corpus(config.model_copy(update={"max_documents_per_concept": 2}))
    assert [d.text for d in even.documents] == texts[:6]
    assert Counter(d.concept for d in even.documents) == {"a": 2, "b": 2, "c": 2}
    both = read_corpus(
        config.model_copy(update={"max_documents_per_concept": 2, "max_documents": 3})
    )
    assert [d.text for d in both.documents] == texts[:3]


def test_documents_without_a_concept_are_not_capped_per_concept(tmp_path):
    (tmp_path / "c.jsonl").write_text("\n".join(f'{{"text": "t{i}"}}' for i in range(4)))
    config = CorpusConfig(path=str(tmp_path / "c.jsonl"), max_documents_per_concept=1)
    assert len(read_corpus(config).documents) == 4


def test_rows_past_a_cap_are_not_examined(tmp_path):
    path = write(tmp_path / "c.jsonl", ["One.", "Two."])
    with path.open("a") as stream:
        stream.write('\n{"text": ""}')
    with pytest.raises(CorpusError):
        read_corpus(CorpusConfig(path=str(path)))
    assert len(read_corpus(CorpusConfig(path=str(path), max_documents=2)).documents) == 2


def test_only_the_concepts_asked_for(tmp_path):
    path = write(tmp_path / "c.jsonl", [f"Text {i}." for i in range(6)])
    with path.open("a") as stream:
        stream.write('\n{"text": "", "concept": "a"}\n{"text": "Unlabelled."}\n{broken')
    config = CorpusConfig(path=str(path), concepts=("b", "c"), bad_rows="reject")
    reading = read_corpus(config)
    assert [d.concept for d in reading.documents] == ["b", "c", "b", "c"]
    # The broken line may be of any concept; the blank one is known to be of another.
    assert [row.source_row for row in reading.rejected] == [9]


def test_a_concept_that_is_not_there_is_an_error(tmp_path):
    path = write(tmp_path / "c.jsonl", ["One.", "Two.", "Three."])
    with pytest.raises(CorpusError, match=r"no usable document of the concepts B;.*case-sensitive"):
        read_corpus(CorpusConfig(path=str(path), concepts=("a", "B")))


@pytest.fixture(scope="module")
def any_corpus(tmp_path_factory):
    return tmp_path_factory.mktemp("corpus") / "c.jsonl"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=12))
def test_any_text_becomes_a_document_or_a_rejected_row(any_corpus, texts):
    path = any_corpus
    path.write_text("\n".join(json.dumps({"text": text}) for text in ["anchor", *texts]))
    reading = read_corpus(CorpusConfig(path=str(path), bad_rows="reject"))
    assert len(reading.documents) + len(reading.rejected) == len(texts) + 1
    usable = dict.fromkeys(
        text.strip() for text in ["anchor", *texts] if text.strip() and "\0" not in text.strip()
    )
    assert [d.text for d in reading.documents] == list(usable)
    frame = DOCUMENTS.conform(documents_frame(reading), {"study": "s"})
    for row in frame.filter(status="ok").iter_rows(named=True):
        assert row["document_id"] == hashlib.sha256(row["text"].encode()).hexdigest()[:16]
        assert row["n_characters"] == len(row["text"])


def test_a_document_keeps_its_id_wherever_it_stands(tmp_path):
    one = read_corpus(CorpusConfig(path=str(write(tmp_path / "a.jsonl", ["x", "y"]))))
    other = read_corpus(CorpusConfig(path=str(write(tmp_path / "b.jsonl", ["y", "z", "x"]))))
    assert one.documents[1].document_id == other.documents[0].document_id == document_id("y")


def test_the_fingerprint_follows_contents_and_names_only(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder / "red").mkdir(parents=True)
        (tmp_path / folder / "red" / "a.txt").write_text("Red.")
        (tmp_path / folder / "b.txt").write_text("None.")
    one, two = (CorpusConfig(path=folder) for folder in ("one", "two"))
    before = corpus_fingerprint(one, tmp_path)
    assert corpus_fingerprint(two, tmp_path) == before
    (tmp_path / "two" / "b.txt").write_text("None!")
    assert corpus_fingerprint(two, tmp_path) != before
    (tmp_path / "one" / "red").rename(tmp_path / "one" / "rot")
    assert corpus_fingerprint(one, tmp_path) != before


def test_an_empty_frame_has_the_declared_columns():
    assert TABLES == (DOCUMENTS,)
    frame = documents_frame(read_corpus(CorpusConfig(max_documents=1))).clear()
    assert len(DOCUMENTS.conform(frame, {"study": "s"})) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"path": " "},
        {"max_documents": 0},
        {"max_characters": 0},
        {"bad_rows": "ignore"},
        {"concepts": ()},
        {"concepts": ("a", "a")},
        {"text_field": ""},
        {"pth": "x"},
    ],
)
def test_options_out_of_bounds_are_refused(options):
    with pytest.raises(ValidationError):
        CorpusConfig(**options)
