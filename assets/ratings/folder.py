"""The folder of a study's sheets, beside its file: `<study>.ratings/`.

    key-<hash>.parquet      what the items of a sheet that was handed out stand for
    sheet-<name>.csv        a sheet that came back, as it was (or .parquet)

A sheet's name is a hash of its items and raters: the same sheet again, or one with edited ratings,
takes the place of the one before. Under a corrected rater's name it is another sheet, by which one
person would count as two who agree in everything; so of two sheets with the same ratings the second
is refused, until the first is deleted. Files are put in place whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import polars as pl

from assets.ratings.draw import SHOWN
from assets.ratings.items import ITEM, ITEMS
from assets.ratings.sheet_files import (
    SUFFIXES,
    AskedItem,
    RatedSheet,
    SheetError,
    read_sheet,
    same_name,
)

_DIGITS = 16


def ratings_folder(study_folder: Path, study: str) -> Path:
    return study_folder / f"{study}.ratings"


def files_hash(folder: Path) -> str:
    """A hash of all keys and sheets; of nothing where there is no folder."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("key-*.parquet"), *_sheet_paths(folder)]):
        digest.update(f"{path.name}:{hashlib.sha256(path.read_bytes()).hexdigest()};".encode())
    return digest.hexdigest()[:_DIGITS]


def keep_key(folder: Path, items: pl.DataFrame) -> Path:
    """Keep what a sheet's items stand for (columns of ITEMS); the file, the same for the same."""
    ordered = items.select(list(ITEMS)).sort("item", "question", "judge")
    name = hashlib.sha256(ordered.write_ndjson().encode()).hexdigest()[:_DIGITS]
    path = folder / f"key-{name}.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    ordered.write_parquet(part)
    os.replace(part, path)
    return path


def read_keys(folder: Path) -> pl.DataFrame:
    """What all items stand for that were ever asked, one row an item, question and judge."""
    frames = [pl.read_parquet(path) for path in sorted(folder.glob("key-*.parquet"))]
    whole = pl.concat([pl.DataFrame(schema=ITEMS), *frames])
    return whole.unique(["item", "question", "judge"], keep="first").sort(
        "item", "question", "judge"
    )


def take_sheet(folder: Path, path: Path) -> tuple[RatedSheet, bool]:
    """Check a filled-in sheet and keep a copy; the sheet, and whether it took another's place.

    Raises SheetError, and changes nothing, where the sheet is not right, or has the ratings of
    another one.
    """
    asked = asked_items(read_keys(folder))
    sheet = read_sheet(path, asked)
    for other in _sheet_paths(folder):
        _check_not_twice(path, sheet, other, read_sheet(other, asked))
    before = [p for suffix in SUFFIXES if (p := folder / f"sheet-{sheet.sheet}{suffix}").exists()]
    kept = folder / f"sheet-{sheet.sheet}{path.suffix}"
    part = kept.with_suffix(".part")
    part.write_bytes(path.read_bytes())
    os.replace(part, kept)
    for other in before:
        if other != kept:
            other.unlink()
    return sheet, bool(before)


def read_sheets(folder: Path) -> list[RatedSheet]:
    """Every sheet that came back; SheetError for one that is not right."""
    asked = asked_items(read_keys(folder))
    sheets: dict[Path, RatedSheet] = {}
    for path in _sheet_paths(folder):
        sheet = read_sheet(path, asked)
        for other, kept in sheets.items():
            if sheet.sheet == kept.sheet:
                raise SheetError(
                    f"{path} holds the items and raters of {other}; remove one of them, and import "
                    "sheets by make ratings"
                )
            _check_not_twice(path, sheet, other, kept)
        sheets[path] = sheet
    return list(sheets.values())


def _check_not_twice(path: Path, sheet: RatedSheet, other: Path, kept: RatedSheet) -> None:
    """Raises SheetError for one person under two names: in two spellings, or the same ratings."""
    if sheet.sheet == kept.sheet:
        return
    _check_spelling(path, sheet, other, kept)
    if not _ratings_alone(sheet).equals(_ratings_alone(kept)):
        return
    first, second = (", ".join(sorted(set(one.ratings["rater"]))) for one in (kept, sheet))
    raise SheetError(
        f"{path} holds, as ratings of {second}, the very ratings of {first} in {other}; expected "
        "ratings of another person. If it is the same sheet (a name was corrected, rows were "
        "removed), delete the one that is wrong and run make ratings again; if two people agree in "
        "every rating, put the rows of both into one sheet"
    )


def _check_spelling(path: Path, sheet: RatedSheet, other: Path, kept: RatedSheet) -> None:
    known = {same_name(name): name for name in kept.ratings["rater"].unique()}
    for name in sorted(set(sheet.ratings["rater"])):
        if (before := known.get(same_name(name), name)) != name:
            raise SheetError(
                f"{path} has ratings of {name!r}, who is {before!r} in {other}; write a person's "
                "name in one way in all sheets, and run make ratings again"
            )


def _ratings_alone(sheet: RatedSheet) -> pl.DataFrame:
    return sheet.ratings.drop("rater").sort("item", "question", "rating")


def asked_items(keys: pl.DataFrame) -> dict[str, AskedItem]:
    """What raters saw of every item, by its name."""
    return {
        row["item"]: AskedItem(
            row["kind"], {name: row[name] or "" for name in SHOWN[row["kind"]] if name != "item"}
        )
        for row in keys.select(list(ITEM)).unique("item").iter_rows(named=True)
    }


def _sheet_paths(folder: Path) -> list[Path]:
    return sorted(p for suffix in SUFFIXES for p in folder.glob(f"sheet-*{suffix}"))
