"""A sheet that comes back is read as it was rated, in any form; what is wrong is named whole."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from assets.ratings.draw import RATER, rating_columns
from assets.ratings.folder import (
    asked_items,
    files_hash,
    keep_key,
    read_sheets,
    take_sheet,
)
from assets.ratings.items import Kind
from assets.ratings.sheet_files import SheetError, read_sheet
from tests.ratings.filled_sheets import ITEMS_OF, filled, labels, texts, written


@pytest.mark.parametrize("kind", ["texts", "labels"])
@pytest.mark.parametrize("form", ["comma", "spreadsheet", "parquet", "parquet of floats"])
def test_a_filled_sheet_is_read_as_it_was_rated(tmp_path: Path, kind: Kind, form: str) -> None:
    items = ITEMS_OF[kind]()
    sheet = filled(items, kind)
    path = tmp_path / ("sheet.csv" if form in ("comma", "spreadsheet") else "sheet.parquet")
    if form == "spreadsheet":
        # As a spreadsheet in many countries saves it: BOM, semicolons, CRLF, an empty last row.
        text = pl.DataFrame(sheet).write_csv(separator=";", line_terminator="\r\n")
        path.write_bytes(b"\xef\xbb\xbf" + (text + ";" * (len(sheet) - 1) + "\r\n").encode())
    elif form == "parquet of floats":
        floats = {name: [float(v) for v in sheet[name]] for name in rating_columns(kind)}
        written(sheet | floats, path)
    else:
        written(sheet, path)
    rated = read_sheet(path, asked_items(items))
    expected = {
        (item, name.removesuffix("_rating"), "Ada", float(value))
        for name in rating_columns(kind)
        for item, value in zip(sheet["item"], sheet[name], strict=True)
    }
    assert set(rated.ratings.iter_rows()) == expected and rated.n_unrated == 0


def test_items_that_nobody_rated_are_counted_and_half_rated_ones_kept(tmp_path: Path) -> None:
    items = texts()
    sheet = filled(items)
    sheet["concept_rating"][0] = sheet["fluency_rating"][0] = None
    sheet["fluency_rating"][1] = ""
    rated = read_sheet(written(sheet, tmp_path / "sheet.csv"), asked_items(items))
    assert rated.n_unrated == 1 and len(rated.ratings) == 2 * 12 - 3


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_every_problem_is_named_by_row_and_column_and_nothing_is_taken(
    tmp_path: Path, suffix: str
) -> None:
    items = texts()
    folder = tmp_path / "mini.ratings"
    keep_key(folder, items)
    sheet = filled(items)
    sheet["concept_rating"][0] = "3"
    sheet["fluency_rating"][2] = "good"
    sheet["item"][3] = "i000"
    sheet[RATER][4] = " "
    sheet["item"][6] = sheet["item"][5]
    path = written(sheet, tmp_path / f"sheet{suffix}")
    before = files_hash(folder)
    with pytest.raises(SheetError) as error:
        take_sheet(folder, path)
    said = str(error.value)
    assert str(path) in said and "nothing was taken" in said
    for words in (
        "row 2, column concept_rating: found '3', expected 0, 1 or 2",
        "row 4, column fluency_rating: found 'good'",
        "row 5, column item: found 'i000'",
        "row 6, column rater: found nothing",
        "row 8, column item: found",
    ):
        assert words in said
    assert len(said.splitlines()) == 1 + 5
    assert files_hash(folder) == before and read_sheets(folder) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"item,label\ni1,x\n", "found the columns ['item', 'label']; expected item, concept"),
        (b"", "found the columns []"),
        (b"item\xff", "is no UTF-8"),
        (b"item,concept_rating,fluency_rating,rater\ni1,1\n", "row 2: expected 4 cells"),
        (b"item,concept_rating,fluency_rating,rater\n", "no ratings in concept_rating"),
    ],
)
def test_files_that_are_no_sheets(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "sheet.csv"
    path.write_bytes(content)
    with pytest.raises(SheetError, match=r".*sheet\.csv") as error:
        read_sheet(path, {})
    assert said in str(error.value)


def test_ratings_beside_another_text_are_named_by_row_and_remedy(tmp_path: Path) -> None:
    items = texts()
    sheet = filled(items)
    # Somebody sorted one column by itself.
    first, second, *others = sheet["text"]
    path = written(sheet | {"text": [second, first, *others]}, tmp_path / "sorted.csv")
    with pytest.raises(SheetError) as error:
        read_sheet(path, asked_items(items))
    said = str(error.value).splitlines()
    assert len(said) == 3 and "rate a fresh sheet" in said[1]
    for line, row, found, shown in ((said[1], 2, second, first), (said[2], 3, first, second)):
        assert f"row {row}, column text: found {found.strip()!r}" in line
        assert f"showed {shown!r}" in line
    # As the message says, a column that is gone is no problem; nor are spaces and line ends.
    without = {name: values for name, values in sheet.items() if name != "text"}
    spaced = sheet | {"text": [f"{text.replace(' ', '  ')}\r\n" for text in sheet["text"]]}
    for kept in (without, spaced):
        assert len(read_sheet(written(kept, path), asked_items(items)).ratings) == 24


def test_a_sheet_of_another_study_says_what_to_do(tmp_path: Path) -> None:
    foreign = texts().with_columns(item=pl.concat_str(pl.lit("j"), "item"))
    path = written(filled(foreign), tmp_path / "foreign.csv")
    with pytest.raises(SheetError, match=r"row 2, column item: found 'j.*by STUDY="):
        read_sheet(path, asked_items(texts()))


def test_a_column_that_stands_twice_is_an_error(tmp_path: Path) -> None:
    path = written(filled(texts()), tmp_path / "s.csv")
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([f"{header},rater", *(f"{line},Bo" for line in lines)]))
    with pytest.raises(SheetError, match=r"row 1: found the columns \['rater'\] more than once"):
        read_sheet(path, asked_items(texts()))


def test_other_endings_and_missing_files_are_errors(tmp_path: Path) -> None:
    for path, said in (
        (tmp_path / "a.xlsx", "expected .csv or .parquet"),
        (tmp_path / "a.csv", "cannot be read"),
    ):
        with pytest.raises(SheetError, match=said):
            read_sheet(path, {})
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(SheetError, match="no readable Parquet"):
        read_sheet(tmp_path / "a.parquet", {})


def test_a_sheet_of_labels_cannot_rate_texts(tmp_path: Path) -> None:
    sheet = filled(labels(), "labels")
    sheet["item"][0] = texts()["item"][0]
    with pytest.raises(SheetError, match="expected an item of a sheet of labels"):
        read_sheet(written(sheet, tmp_path / "s.csv"), asked_items(texts()) | asked_items(labels()))
