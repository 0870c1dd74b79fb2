"""Each kind of bad row ends the reading, or becomes a rejected row with its reason."""

import json

import polars as pl
import pytest

from assets.corpus.config import CorpusConfig
from assets.corpus.documents import CorpusError, documents_frame
from assets.corpus.read import read_corpus
from assets.corpus.tables import DOCUMENTS

FIRST = b'{"text": "The first text.", "concept": "a"}'
LAST = b'{"text": "The last text.", "concept": "b"}'

# The bad line stands on line 2, between two good ones.
BAD_LINES = {
    "no text field": (b'{"body": "x", "concept": "a"}', "no field 'text' or 'prompt'.*body"),
    "null text": (b'{"text": null}', "text is null"),
    "number as text": (b'{"text": 3}', "text is of type int"),
    "empty text": (b'{"text": ""}', "empty or blank"),
    "blank text": (b'{"text": " \\t\\n "}', "empty or blank"),
    "100k characters": (
        json.dumps({"text": "x" * 100_000}).encode(),
        "100,000 characters, more than max_characters = 20,000",
    ),
    "duplicate": (
        b'{"text": "  The first text.\\n", "concept": "b"}',
        r"repeats the text of c\.jsonl, row 1",
    ),
    "invalid UTF-8": (b'{"text": "caf\xe9"}', "invalid UTF-8 at byte 14 of line 2"),
    "NUL": (b'{"text": "ab\\u0000c"}', "NUL character at character 3 of the text"),
    "half surrogate": (b'{"text": "ab\\ud800"}', "half of a surrogate pair at character 3"),
    "NUL in concept": (b'{"text": "abc", "concept": "\\u0000"}', "NUL .* of the concept"),
    "list as concept": (b'{"text": "abc", "concept": ["a"]}', "concept is of type list"),
    "broken JSON": (b'{"text": "abc"', "line 2 is no valid JSON"),
    "no object": (b'["abc"]', "found a list, expected an object"),
}


def write(folder, *lines):
    path = folder / "c.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


@pytest.mark.parametrize("kind", BAD_LINES)
def test_a_bad_row_ends_the_reading(tmp_path, kind):
    line, reason = BAD_LINES[kind]
    path = write(tmp_path, FIRST, line, LAST)
    with pytest.raises(CorpusError, match=rf"(?s)1 bad row: c\.jsonl, row 2: .*{reason}") as error:
        read_corpus(CorpusConfig(path=str(path)))
    assert "corpus.bad_rows: reject" in str(error.value)


@pytest.mark.parametrize("kind", BAD_LINES)
def test_a_bad_row_is_kept_as_rejected(tmp_path, kind):
    line, reason = BAD_LINES[kind]
    path = write(tmp_path, FIRST, line, LAST)
    reading = read_corpus(CorpusConfig(path=str(path), bad_rows="reject"))
    frame = DOCUMENTS.conform(documents_frame(reading), {"study": "s"})
    ok, rejected = frame.filter(status="ok"), frame.filter(status="rejected")
    assert ok["text"].to_list() == ["The first text.", "The last text."]
    assert ok["source_row"].to_list() == [1, 3]
    assert ok["reason"].null_count() == 2
    assert len(rejected) == 1
    row = rejected.row(0, named=True)
    assert (row["source"], row["source_row"], row["text"]) == ("c.jsonl", 2, None)
    assert pl.Series([row["reason"]]).str.contains(reason).all()


def test_a_100k_text_passes_where_the_study_allows_it(tmp_path):
    path = write(tmp_path, json.dumps({"text": "x" * 100_000 + "\n"}).encode())
    reading = read_corpus(CorpusConfig(path=str(path), max_characters=100_000))
    assert len(reading.documents[0].text) == 100_000


def test_the_error_counts_all_bad_rows_and_lists_five(tmp_path):
    path = write(tmp_path, FIRST, *[b'{"text": ""}'] * 7, LAST)
    with pytest.raises(CorpusError) as error:
        read_corpus(CorpusConfig(path=str(path)))
    message = str(error.value)
    assert "7 bad rows" in message
    assert "and 2 more" in message
    assert [n for n in range(1, 11) if f"row {n}:" in message] == [2, 3, 4, 5, 6]


def test_a_corpus_of_bad_rows_only_is_an_error_even_when_they_are_rejected(tmp_path):
    path = write(tmp_path, b'{"text": ""}', b"{")
    with pytest.raises(CorpusError, match=r"no usable document \(2 bad rows"):
        read_corpus(CorpusConfig(path=str(path), bad_rows="reject"))


def test_rejected_rows_keep_unique_ids_and_their_known_length(tmp_path):
    path = write(tmp_path, FIRST, FIRST, FIRST, b'{"text": ""}', b"{")
    reading = read_corpus(CorpusConfig(path=str(path), bad_rows="reject"))
    frame = DOCUMENTS.conform(documents_frame(reading), {"study": "s"})
    assert frame["document_id"].n_unique() == len(frame) == 5
    assert frame["n_characters"].to_list() == [15, 15, 15, 0, None]
    assert frame["concept"].to_list() == ["a", "a", "a", None, None]


def test_csv_rows_with_invalid_utf8_empty_cells_and_duplicates(tmp_path):
    path = tmp_path / "c.csv"
    path.write_bytes(
        b'text,concept\nGood caf\xc3\xa9.,a\n"Bad\ncaf\xe9.",a\n,a\n"  ",a\n'
        b"Good caf\xc3\xa9.,b\nEnd.,b\n"
    )
    with pytest.raises(CorpusError, match="4 bad rows"):
        read_corpus(CorpusConfig(path=str(path)))
    reading = read_corpus(CorpusConfig(path=str(path), bad_rows="reject"))
    assert [d.text for d in reading.documents] == ["Good café.", "End."]
    assert [(row.source_row, row.reason) for row in reading.rejected] == [
        (2, "invalid UTF-8 in record 2"),
        (3, "the text is null"),
        (4, "the text is empty or blank"),
        (5, "repeats the text of c.csv, row 1"),
    ]


def test_parquet_rows_that_are_null_or_no_text(tmp_path):
    path = tmp_path / "c.parquet"
    pl.DataFrame({"text": ["One.", None, "One. ", "Two."]}).write_parquet(path)
    reading = read_corpus(CorpusConfig(path=str(path), bad_rows="reject"))
    assert [d.source_row for d in reading.documents] == [1, 4]
    assert [row.source_row for row in reading.rejected] == [2, 3]
    pl.DataFrame({"text": [1, 2]}).write_parquet(path)
    with pytest.raises(CorpusError, match=r"2 bad rows.*type int"):
        read_corpus(CorpusConfig(path=str(path)))


def test_text_files_that_are_invalid_or_repeated(tmp_path):
    (tmp_path / "1.txt").write_bytes(b"Hello.")
    (tmp_path / "2.txt").write_bytes(b"\xef\xbb\xbfline\ncaf\xe9")
    (tmp_path / "3.txt").write_bytes(b"Hello.\n")
    reading = read_corpus(CorpusConfig(path=str(tmp_path), bad_rows="reject"))
    assert [d.source for d in reading.documents] == ["1.txt"]
    assert [(row.source, row.reason.split(";")[0]) for row in reading.rejected] == [
        ("2.txt", "invalid UTF-8 on line 2, byte 12 of the file"),
        ("3.txt", "repeats the text of 1.txt, row 1"),
    ]
