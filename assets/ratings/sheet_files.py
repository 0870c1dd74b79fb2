"""Sheets as files: written blind, read back with every problem named by file, row and column.

CSV (comma, semicolon or tab, as spreadsheets save them) or Parquet, by the file's ending. A row
that nobody rated is left out; everything else that is not right is a problem, and with one problem
nothing is taken from the sheet. Row 1 is the header, so rows count as in a spreadsheet. What stands
beside a rating must be what its item showed: a column that was sorted by itself puts every rating
to another text.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from assets.ratings.draw import RATER, SHOWN, rating_columns
from assets.ratings.items import QUESTIONS, Kind

SUFFIXES = (".csv", ".parquet")
RATINGS = {"0": 0.0, "1": 1.0, "2": 2.0}
_SEPARATORS = (",", ";", "\t")
_MOST_SHOWN = 20
_MOST_QUOTED = 40
_DIGITS = 16
RATED = {
    "item": pl.String,
    "question": pl.String,
    "rater": pl.String,
    "rating": pl.Float64,
}


class SheetError(ValueError):
    """A sheet says something that cannot be taken; nothing of it was."""


@dataclass(frozen=True)
class AskedItem:
    """What an item of a sheet is: its kind, and what was shown, by column (but for `item`)."""

    kind: str
    shown: Mapping[str, str]


@dataclass(frozen=True)
class RatedSheet:
    """A sheet's ratings (columns of RATED), what names it, and how many items nobody rated."""

    ratings: pl.DataFrame
    sheet: str
    sheet_hash: str
    n_unrated: int


def write_sheet(sheet: pl.DataFrame, path: Path) -> None:
    """Raises SheetError for another ending than .csv or .parquet."""
    check_suffix(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        sheet.write_parquet(path)
    else:
        # Spreadsheets read UTF-8 as something else without the mark.
        sheet.write_csv(path, include_bom=True)


def read_sheet(path: Path, asked: Mapping[str, AskedItem]) -> RatedSheet:
    """The ratings of a filled-in sheet; `asked` has every item that was ever asked, by its name.

    Raises SheetError that lists file, row, column, what was found and what was expected.
    """
    check_suffix(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SheetError(f"{path} cannot be read ({error}); name a filled-in sheet") from error
    header, rows = _from_csv(path, content) if path.suffix == ".csv" else _from_parquet(path)
    kind = _kind(path, header)
    problems: list[str] = []
    ratings: list[tuple[str, str, str, float]] = []
    seen: dict[tuple[str, str], int] = {}
    spellings: dict[str, tuple[str, int]] = {}
    unrated = 0
    for number, row in rows:
        where = f"row {number}"
        if row is None:
            problems.append(f"{where}: expected {len(header)} cells, as in the header")
            continue
        item, rater = row["item"], row[RATER]
        if not any(row.values()):
            continue
        item_of = asked.get(item)
        is_known = item_of is not None and item_of.kind == kind
        if not is_known:
            problems.append(
                f"{where}, column item: found {item!r}, expected an item of a sheet of {kind} "
                "that make rating-sheet wrote for this study; put it back, or name the study that "
                "the sheet is of by STUDY="
            )
        given = {q: row[f"{q}_rating"] for q in QUESTIONS[kind]}
        if not any(given.values()):
            unrated += 1
            continue
        if not rater:
            problems.append(f"{where}, column {RATER}: found nothing, expected the rater's name")
        else:
            name, first = spellings.setdefault(same_name(rater), (rater, number))
            if name != rater:
                problems.append(
                    f"{where}, column {RATER}: found {rater!r}, who is {name!r} in row {first}; "
                    "write a person's name in one way"
                )
        first = seen.setdefault((item, rater), number)
        if rater and first != number:
            problems.append(
                f"{where}, column item: found {item!r} again, which {rater!r} rated in row {first};"
                " expected each item once a rater: remove one of the rows"
            )
        elif is_known:
            problems += [f"{where}, {said}" for said in _not_as_shown(row, item, asked[item])]
        for question, value in given.items():
            if not value:
                continue
            rating = RATINGS.get(value.removesuffix(".0"))
            if rating is None:
                problems.append(
                    f"{where}, column {question}_rating: found {value!r}, expected 0, 1 or 2"
                )
            else:
                ratings.append((item, question, rater, rating))
    if not problems and not ratings:
        problems.append(f"no ratings in {', '.join(rating_columns(kind))}; expected 0, 1 or 2")
    if problems:
        more = len(problems) - _MOST_SHOWN
        lines = problems[:_MOST_SHOWN] + ([f"and {more} more"] if more > 0 else [])
        raise SheetError(
            f"{path}: nothing was taken from the sheet; mend it and import it again\n  "
            + "\n  ".join(lines)
        )
    frame = pl.DataFrame(ratings, schema=RATED, orient="row")
    items = sorted({row["item"] for _, row in rows if row is not None and row["item"]})
    raters = sorted(set(frame["rater"]))
    named = hashlib.sha256("\n".join([*items, "", *raters]).encode()).hexdigest()[:_DIGITS]
    return RatedSheet(frame, named, hashlib.sha256(content).hexdigest(), unrated)


def same_name(rater: str) -> str:
    """What two spellings of one name share: letters, whatever their case, and single spaces."""
    return " ".join(rater.casefold().split())


def _not_as_shown(row: Mapping[str, str], item: str, asked: AskedItem) -> list[str]:
    """A problem where a cell is not what the item showed; columns that are gone are no problem."""
    for column, shown in asked.shown.items():
        found = row.get(column)
        # Spreadsheets change line ends and spaces.
        if found is not None and found.split() != shown.split():
            return [
                f"column {column}: found {_quoted(found)} beside item {item!r}, which showed "
                f"{_quoted(shown)}; if rows were mixed up, rate a fresh sheet; if only this cell "
                f"was changed, put it back, or remove the column {column}"
            ]
    return []


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _MOST_QUOTED else f"{text[:_MOST_QUOTED]}…")


# Rows with their numbers; None for one that does not fit the header.
_Rows = list[tuple[int, dict[str, str] | None]]


def _from_csv(path: Path, content: bytes) -> tuple[list[str], _Rows]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SheetError(
            f"{path}: byte {error.start} is no UTF-8; save the sheet as CSV in UTF-8"
        ) from error
    first_line = text.partition("\n")[0]
    separator = max(_SEPARATORS, key=first_line.count)
    try:
        records = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as error:
        raise SheetError(f"{path} is no readable CSV: {error}") from error
    header = [name.strip() for name in records[0]] if records else []
    rows: _Rows = []
    for number, record in enumerate(records[1:], start=2):
        if not record:
            continue
        fits = len(record) == len(header)
        values = [value.strip() for value in record]
        rows.append((number, dict(zip(header, values, strict=True)) if fits else None))
    return header, rows


def _from_parquet(path: Path) -> tuple[list[str], _Rows]:
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise SheetError(f"{path} is no readable Parquet: {error}") from error
    rows: _Rows = [
        (number, {name: _as_text(value) for name, value in row.items()})
        for number, row in enumerate(frame.iter_rows(named=True), start=2)
    ]
    return frame.columns, rows


def _as_text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _kind(path: Path, header: list[str]) -> Kind:
    """Which kind of sheet it is, by its columns."""
    for kind in QUESTIONS:
        if {"item", RATER, *rating_columns(kind)} <= set(header):
            known = (*SHOWN[kind], *rating_columns(kind), RATER)
            if twice := [name for name in known if header.count(name) > 1]:
                raise SheetError(
                    f"{path}, row 1: found the columns {twice} more than once; remove one of each"
                )
            return kind
    wanted = " or ".join(", ".join(("item", *rating_columns(kind), RATER)) for kind in QUESTIONS)
    raise SheetError(f"{path}, row 1: found the columns {header}; expected {wanted}")


def check_suffix(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise SheetError(
            f"{path} ends in {path.suffix or 'nothing'!r}; expected {' or '.join(SUFFIXES)}"
        )
