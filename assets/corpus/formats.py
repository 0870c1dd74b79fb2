"""One reader a format: from a file to raw rows, in order, not yet judged.

A row that cannot be taken apart (a broken JSONL line, invalid UTF-8) is a raw row with a problem,
so that the rest of the file can still be read. What makes a whole file unreadable (a broken JSON
document, a CSV without the text column) is a CorpusError. Which texts are acceptable is judged in
validate.py.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from assets.corpus.config import CorpusConfig
from assets.corpus.documents import CorpusError
from assets.corpus.sources import SourceFile, unreadable

# A noncharacter that stands for bytes that are no UTF-8 while a CSV file is taken apart.
INVALID_BYTE = "\ufdd0"
UTF8_REMEDY = "save the file as UTF-8"


@dataclass(frozen=True)
class RawRow:
    """A row as found: values of any type, and `problem` where it could not be taken apart."""

    source: str
    source_row: int
    text: Any = None
    concept: Any = None
    parent_concept: Any = None
    problem: str | None = None


def raw_rows(file: SourceFile, config: CorpusConfig) -> Iterator[RawRow]:
    """Rows of one file in order; CorpusError when the file as a whole cannot be read."""
    try:
        yield from READERS[file.path.suffix.lower()](file, config)
    except OSError as error:
        raise unreadable(file, error) from error


def jsonl_rows(file: SourceFile, config: CorpusConfig) -> Iterator[RawRow]:
    """One JSON object a line; blank lines are no rows."""
    with file.path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                problem = f"invalid UTF-8 at byte {error.start + 1} of line {number}"
                yield RawRow(file.name, number, problem=problem)
            except (ValueError, RecursionError) as error:
                yield RawRow(file.name, number, problem=f"line {number} is no valid JSON: {error}")
            else:
                yield _row_of(value, file, number, config)


def json_rows(file: SourceFile, config: CorpusConfig) -> Iterator[RawRow]:
    """A list of objects (or bare texts), or an object {concept: [texts]}."""
    content = file.path.read_bytes()
    try:
        data = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise CorpusError(f"corpus file {file.path}: {_where_invalid(content, error)}") from error
    except json.JSONDecodeError as error:
        raise CorpusError(
            f"corpus file {file.path}, line {error.lineno}, column {error.colno}: no valid JSON "
            f"({error.msg}); mend the file, or name it .jsonl if it holds one object a line"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"corpus file {file.path}: no readable JSON ({error})") from error
    for number, (value, concept) in enumerate(_json_items(data, file, config), start=1):
        yield _row_of(value, file, number, config, concept)


def csv_rows(file: SourceFile, config: CorpusConfig) -> Iterator[RawRow]:
    """A header line and records; all values are text, an empty one is none.

    A record without any value, a blank line among them, is no row but is counted.
    """
    content = file.path.read_bytes()
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        escaped = content.decode("utf-8", errors="surrogateescape")
        content = re.sub("[\udc80-\udcff]", INVALID_BYTE, escaped).encode()
        is_marked = True
    else:
        is_marked = False
    try:
        frame = pl.read_csv(io.BytesIO(content), infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise CorpusError(
            f"corpus file {file.path}: no readable CSV ({_short(error)}); expected a header line "
            "and the same number of fields in every record"
        ) from error
    if is_marked and any(INVALID_BYTE in name for name in frame.columns):
        raise CorpusError(
            f"corpus file {file.path}: invalid UTF-8 in the header line; {UTF8_REMEDY}"
        )
    is_blank = frame.select(pl.all_horizontal(pl.all().is_null())).to_series()
    for row in _frame_rows(frame, file, config):
        if is_blank[row.source_row - 1]:
            continue
        values = (row.text, row.concept, row.parent_concept)
        if is_marked and any(isinstance(v, str) and INVALID_BYTE in v for v in values):
            problem = f"invalid UTF-8 in record {row.source_row}"
            yield RawRow(file.name, row.source_row, problem=problem)
        else:
            yield row


def parquet_rows(file: SourceFile, config: CorpusConfig) -> Iterator[RawRow]:
    """Records of a Parquet file; only the columns asked for are read."""
    wanted = {*config.text_fields, *config.concept_fields, config.parent_concept_field}
    try:
        names = pl.read_parquet_schema(file.path)
        columns = [name for name in names if name in wanted]
        # Without a wanted column the names are still needed, for the error.
        frame = (
            pl.read_parquet(file.path, columns=columns) if columns else pl.DataFrame(schema=names)
        )
    except pl.exceptions.PolarsError as error:
        raise CorpusError(
            f"corpus file {file.path}: no readable Parquet ({_short(error)}); write it again"
        ) from error
    yield from _frame_rows(frame, file, config, names=list(names))


def text_rows(file: SourceFile, config: CorpusConfig) -> Iterator[RawRow]:
    """The whole file as one document, with the concepts that its folders give."""
    content = file.path.read_bytes()
    text, problem = None, None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = _where_invalid(content, error)
    yield RawRow(file.name, 1, text, file.concept, file.parent_concept, problem)


READERS: Mapping[str, Callable[[SourceFile, CorpusConfig], Iterator[RawRow]]] = {
    ".jsonl": jsonl_rows,
    ".ndjson": jsonl_rows,
    ".json": json_rows,
    ".csv": csv_rows,
    ".parquet": parquet_rows,
    ".txt": text_rows,
}


def _first_present(names: tuple[str, ...], values: Sequence[str] | Mapping[str, Any]) -> str | None:
    return next((name for name in names if name in values), None)


def _row_of(
    value: Any, file: SourceFile, number: int, config: CorpusConfig, concept: str | None = None
) -> RawRow:
    """A row from an object, or from a bare text; `concept` is the one it is listed under."""
    if isinstance(value, str):
        return RawRow(file.name, number, value, concept)
    if not isinstance(value, dict):
        problem = (
            f"found {_type_name(value)}, expected an object with the field {config.text_field!r}"
        )
        return RawRow(file.name, number, concept=concept, problem=problem)
    text_field = _first_present(config.text_fields, value)
    concept_field = _first_present(config.concept_fields, value)
    problem = None
    if text_field is None:
        expected = " or ".join(map(repr, config.text_fields))
        problem = f"no field {expected} (fields found: {', '.join(map(str, value)) or 'none'})"
    return RawRow(
        source=file.name,
        source_row=number,
        text=value[text_field] if text_field is not None else None,
        concept=value[concept_field] if concept_field is not None else concept,
        parent_concept=value.get(config.parent_concept_field),
        problem=problem,
    )


def _json_items(
    data: Any, file: SourceFile, config: CorpusConfig
) -> Iterator[tuple[Any, str | None]]:
    if isinstance(data, list):
        yield from ((value, None) for value in data)
        return
    wanted = "expected a list of objects, or an object {concept: [texts]}"
    if not isinstance(data, dict):
        raise CorpusError(f"corpus file {file.path}: found {_type_name(data)}; {wanted}")
    if _first_present(config.text_fields, data) is not None:
        raise CorpusError(
            f"corpus file {file.path}: found an object with the text field as a key; {wanted}"
        )
    for concept, texts in data.items():
        if not isinstance(texts, list):
            raise CorpusError(
                f"corpus file {file.path}: under {concept!r} found {_type_name(texts)}; {wanted}"
            )
        yield from ((text, concept) for text in texts)


def _frame_rows(
    frame: pl.DataFrame, file: SourceFile, config: CorpusConfig, names: list[str] | None = None
) -> Iterator[RawRow]:
    text_field = _first_present(config.text_fields, frame.columns)
    if text_field is None:
        raise CorpusError(
            f"corpus file {file.path}: found the columns {', '.join(names or frame.columns)}; "
            f"expected {' or '.join(map(repr, config.text_fields))}; rename a column or set "
            "corpus.text_field"
        )
    concept_field = _first_present(config.concept_fields, frame.columns)
    parent_field = _first_present((config.parent_concept_field,), frame.columns)
    empty = [None] * len(frame)
    values = [
        frame[field] if field is not None else empty
        for field in (text_field, concept_field, parent_field)
    ]
    for number, (text, concept, parent_concept) in enumerate(zip(*values, strict=True), start=1):
        yield RawRow(file.name, number, text, concept, parent_concept)


def _type_name(value: Any) -> str:
    names = {dict: "an object", list: "a list", type(None): "null", bool: "a truth value"}
    return names.get(type(value), f"a value of type {type(value).__name__}")


def _where_invalid(content: bytes, error: UnicodeDecodeError) -> str:
    # utf-8-sig counts from after a byte order mark.
    offset = error.start + len(content) - len(error.object)
    line = content.count(b"\n", 0, offset) + 1
    return f"invalid UTF-8 on line {line}, byte {offset + 1} of the file; {UTF8_REMEDY}"


def _short(error: pl.exceptions.PolarsError) -> str:
    # Polars follows its advice for programmers with the cause; only the cause is for the reader.
    cause = str(error).split("Original error:")[-1].strip("`. \n")
    return " ".join(cause.split())[:200]
