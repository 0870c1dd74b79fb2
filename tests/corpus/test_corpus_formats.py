"""Every format gives the same documents, in order; a file unreadable as a whole says why."""

import csv
import json

import polars as pl
import pytest

from assets.corpus.config import CorpusConfig
from assets.corpus.documents import CorpusError
from assets.corpus.read import read_corpus

ROWS = [
    ('Zoë asked, "Is it Monday?"\nNobody knew.', "Monday", "time"),
    ("A red door, and a blue one.", "red", "colours"),
    ("Der Hund bellt — schon wieder.", "German", "languages"),
    ("Nothing is known about this one.", None, None),
    ("A sentence of Monday again.", "Monday", "time"),
]


def as_objects(text="text", concept="concept"):
    return [{text: t, concept: c, "parent_concept": p} for t, c, p in ROWS]


def write_jsonl(folder, **names):
    path = folder / "corpus.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) for row in as_objects(**names)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_json(folder, **names):
    path = folder / "corpus.json"
    path.write_text(json.dumps(as_objects(**names), indent=2), encoding="utf-8")
    return path


def write_csv(folder, text="text", concept="concept"):
    path = folder / "corpus.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([text, concept, "parent_concept"])
        writer.writerows(ROWS)
    return path


def write_parquet(folder, **names):
    path = folder / "corpus.parquet"
    pl.DataFrame(as_objects(**names)).with_columns(unused=pl.lit(1)).write_parquet(path)
    return path


WRITERS = [write_jsonl, write_json, write_csv, write_parquet]


def read(path, **options):
    return read_corpus(CorpusConfig(path=str(path), **options))


def as_tuples(reading):
    return [(d.text, d.concept, d.parent_concept) for d in reading.documents]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("names", [("text", "concept"), ("prompt", "label")])
def test_default_field_names_and_their_aliases(tmp_path, write, names):
    path = write(tmp_path, text=names[0], concept=names[1])
    reading = read(path)
    assert as_tuples(reading) == ROWS
    assert {d.source for d in reading.documents} == {path.name}
    assert [d.source_row for d in reading.documents] == [1, 2, 3, 4, 5]
    assert read(path) == reading


@pytest.mark.parametrize("write", WRITERS)
def test_named_fields(tmp_path, write):
    path = write(tmp_path, text="body", concept="topic")
    assert as_tuples(read(path, text_field="body", concept_field="topic")) == ROWS


@pytest.mark.parametrize("write", WRITERS)
def test_a_misspelt_concept_field_is_an_error_not_an_unlabelled_corpus(tmp_path, write):
    with pytest.raises(CorpusError, match="concept_field is 'tpoic'"):
        read(write(tmp_path), concept_field="tpoic")


def test_json_of_concepts_and_bare_texts(tmp_path):
    path = tmp_path / "corpus.json"
    path.write_text(json.dumps({"red": ["A red hat.", {"text": "Red again."}], "blue": ["Sky."]}))
    assert as_tuples(read(path)) == [
        ("A red hat.", "red", None),
        ("Red again.", "red", None),
        ("Sky.", "blue", None),
    ]
    path.write_text(json.dumps(["One text.", "Another text."]))
    assert as_tuples(read(path)) == [("One text.", None, None), ("Another text.", None, None)]


def test_a_corpus_without_labels(tmp_path):
    path = tmp_path / "corpus.csv"
    path.write_text("id,text\n1,First.\n2,Second.\n")
    assert as_tuples(read(path)) == [("First.", None, None), ("Second.", None, None)]


def test_numbers_as_labels_become_names(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"text": "One.", "label": 7}\n{"text": "Two.", "label": " "}\n')
    assert as_tuples(read(path)) == [("One.", "7", None), ("Two.", None, None)]


def test_a_folder_of_text_files(tmp_path):
    contents = {
        "b.txt": "Loose text.\n",
        "animals/dogs/2.txt": "A second dog.",
        "animals/dogs/1.TXT": "\ufeffA first dog.",
        "red/1.txt": "A red hat.",
        "red/.hidden.txt": "Not read.",
        ".cache/x.txt": "Not read.",
        "notes.md": "Not read.",
    }
    for name, content in contents.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    reading = read(tmp_path)
    assert [(d.source, d.text, d.concept, d.parent_concept) for d in reading.documents] == [
        ("animals/dogs/1.TXT", "A first dog.", "dogs", "animals"),
        ("animals/dogs/2.txt", "A second dog.", "dogs", "animals"),
        ("b.txt", "Loose text.", None, None),
        ("red/1.txt", "A red hat.", "red", None),
    ]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_a_byte_order_mark_is_no_text(tmp_path, suffix):
    content = {
        ".jsonl": '{"text": "Hello there."}\n',
        ".json": '[{"text": "Hello there."}]',
        ".csv": "text,concept\nHello there.,x\n",
    }[suffix]
    path = tmp_path / f"corpus{suffix}"
    path.write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert [d.text for d in read(path).documents] == ["Hello there."]


def test_blank_jsonl_lines_are_no_rows_but_count_as_lines(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b'{"text": "One."}\r\n\r\n{"text": "Two\xe2\x80\xa8parts."}\r\n\n')
    reading = read(path)
    assert [(d.source_row, d.text) for d in reading.documents] == [
        (1, "One."),
        (3, "Two\u2028parts."),
    ]


def test_blank_csv_records_are_no_rows_but_are_counted(tmp_path):
    path = tmp_path / "corpus.csv"
    path.write_text("text,concept\nOne.,x\n\n,\nTwo.,y\n\n")
    reading = read(path)
    assert [(d.source_row, d.text) for d in reading.documents] == [(1, "One."), (4, "Two.")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'[\n{"text": "One."},\n{"text": }\n]', r"a\.json, line 3.*JSON"),
        ("a.json", b'{"text": "One."}\n{"text": "Two."}', r"line 2.*name it \.jsonl"),
        ("a.json", b"3", r"found a value of type int; expected a list"),
        ("a.json", b'{"text": ["One."], "label": ["x"]}', r"text field as a key"),
        ("a.json", b'{"red": "One."}', r"under 'red' found a value of type str"),
        ("a.json", b'[\n"caf\xe9"]', r"invalid UTF-8 on line 2, byte 7"),
        ("a.json", b"[" * 200_000, r"no readable JSON|no valid JSON"),
        ("a.csv", b"body,topic\nOne.,x\n", r"columns body, topic; expected 'text' or 'prompt'"),
        ("a.csv", b"text,concept\nOne.,x,surplus\n", r"no readable CSV"),
        ("a.csv", b"", r"no readable CSV"),
        ("a.csv", b'text,concept\n"One.,x\nTwo.,y\n', r"no readable CSV \(invalid csv file"),
        ("a.csv", "text\nOne.\n".encode("utf-16"), r"invalid UTF-8 in the header line"),
        ("a.parquet", b"not parquet", r"no readable Parquet"),
        ("a.txt", b"One.", r"found the suffix '\.txt'; expected a file ending in \.jsonl"),
        ("a.docx", b"One.", r"found the suffix '\.docx'"),
        ("corpus", b"One.", r"found the suffix '\(none\)'"),
        ("a.jsonl", b"\n\n", r"no usable document \(no row at all\)"),
        ("a.csv", b"text,concept\n", r"no usable document"),
    ],
)
@pytest.mark.parametrize("bad_rows", ["error", "reject"])
def test_a_file_unreadable_as_a_whole_is_an_error(tmp_path, name, content, message, bad_rows):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=message) as error:
        read(path, bad_rows=bad_rows)
    assert name in str(error.value)


def test_a_parquet_file_without_the_text_column_names_all_its_columns(tmp_path):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"body": ["One."], "label": ["x"]}).write_parquet(path)
    with pytest.raises(CorpusError, match="columns body, label; expected 'text' or 'prompt'"):
        read(path)


def test_a_folder_without_text_files_says_what_it_holds(tmp_path):
    with pytest.raises(CorpusError, match="it is empty"):
        read(tmp_path)
    write_jsonl(tmp_path)
    with pytest.raises(CorpusError, match=r"no \.txt file \(1 x \.jsonl\)"):
        read(tmp_path)
