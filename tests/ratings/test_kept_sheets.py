"""The folder of ratings: every rater once, whatever is handed in again, renamed or corrected."""

from __future__ import annotations

from pathlib import Path

import pytest

from assets.ratings.draw import RATER, draw_items, rating_columns
from assets.ratings.folder import (
    files_hash,
    keep_key,
    read_keys,
    read_sheets,
    take_sheet,
)
from assets.ratings.frames import human_ratings_frame
from assets.ratings.sheet_files import SheetError
from assets.ratings.tables import HUMAN_RATINGS
from tests.ratings.filled_sheets import filled, texts, written


def test_two_spellings_of_a_name_are_one_person(tmp_path: Path) -> None:
    items, folder = texts(), tmp_path / "mini.ratings"
    keep_key(folder, items)
    sheet = filled(items, rater="Ada L")
    path = tmp_path / "mine.csv"
    written(sheet | {RATER: ["Ada L"] * 5 + ["ada  l"] * 7}, path)
    with pytest.raises(SheetError, match=r"row 7, column rater: found 'ada  l', who is 'Ada L'"):
        take_sheet(folder, path)
    take_sheet(folder, written(sheet, path))
    others = {name: values[:6] for name, values in filled(items, n=30, rater="ada l").items()}
    with pytest.raises(SheetError, match=r"others\.csv has ratings of 'ada l', who is 'Ada L'"):
        take_sheet(folder, written(others, tmp_path / "others.csv"))
    assert len(read_sheets(folder)) == 1


@pytest.mark.parametrize("n_rated", [12, 5])
def test_a_corrected_name_does_not_make_a_second_rater(tmp_path: Path, n_rated: int) -> None:
    items, folder = texts(), tmp_path / "mini.ratings"
    keep_key(folder, items)
    sheet = filled(items, rater="Adda")
    for name in rating_columns("texts"):
        sheet[name][n_rated:] = [None] * (12 - n_rated)
    take_sheet(folder, written(sheet, tmp_path / "mine.csv"))
    (kept,) = folder.glob("sheet-*.csv")
    corrected = written(sheet | {RATER: ["Ada"] * 12}, tmp_path / "corrected.csv")
    before = files_hash(folder)
    with pytest.raises(SheetError, match=r"corrected\.csv.*of Ada,.*of Adda in .*sheet-.*delete"):
        take_sheet(folder, corrected)
    assert files_hash(folder) == before
    # What the message says mends it.
    kept.unlink()
    take_sheet(folder, corrected)
    assert {r for s in read_sheets(folder) for r in s.ratings["rater"]} == {"Ada"}
    # Sheets put there by hand are seen as well.
    (folder / "sheet-by-hand.csv").write_bytes((tmp_path / "mine.csv").read_bytes())
    with pytest.raises(SheetError, match="very ratings"):
        read_sheets(folder)


def test_two_people_of_the_same_sheet_stay_two(tmp_path: Path) -> None:
    items, folder = texts(), tmp_path / "mini.ratings"
    keep_key(folder, items)
    ada = filled(items)
    first, *others = ada["concept_rating"]
    bo = ada | {"concept_rating": [str((int(first) + 1) % 3), *others], RATER: ["Bo"] * 12}
    take_sheet(folder, written(ada, tmp_path / "ada.csv"))
    take_sheet(folder, written(bo, tmp_path / "bo.csv"))
    assert {r for s in read_sheets(folder) for r in s.ratings["rater"]} == {"Ada", "Bo"}
    # Cleo agrees with Ada in everything: one sheet with the rows of both, as the message says.
    both = {name: ada[name] + ada[name] for name in ada} | {RATER: ["Ada"] * 12 + ["Cleo"] * 12}
    take_sheet(folder, written(both, tmp_path / "both.csv"))
    assert {r for s in read_sheets(folder) for r in s.ratings["rater"]} == {"Ada", "Bo", "Cleo"}


def test_the_same_sheet_again_changes_nothing_and_an_edited_one_takes_its_place(
    tmp_path: Path,
) -> None:
    items, folder = texts(), tmp_path / "mini.ratings"
    keep_key(folder, items)
    keep_key(folder, items)
    assert len(list(folder.iterdir())) == 1 and read_keys(folder).equals(items)
    sheet = filled(items)
    _, is_again = take_sheet(folder, written(sheet, tmp_path / "mine.csv"))
    assert not is_again
    first = files_hash(folder)
    _, is_again = take_sheet(folder, tmp_path / "mine.csv")
    assert is_again and files_hash(folder) == first

    other = filled(items, rater="Bo")
    take_sheet(folder, written(other, tmp_path / "others.csv"))
    assert {r for s in read_sheets(folder) for r in s.ratings["rater"]} == {"Ada", "Bo"}

    sheet["concept_rating"] = ["2"] * 12
    take_sheet(folder, written(sheet, tmp_path / "edited.parquet"))
    rows = human_ratings_frame(read_sheets(folder), read_keys(folder))
    HUMAN_RATINGS.conform(rows, {"study": "mini"})
    assert len(rows) == 2 * 24 and len(read_sheets(folder)) == 2
    assert set(rows.filter(rater="Ada", question="concept")["rating"]) == {2.0}
    assert rows.filter(rater="Bo").select("item", "rating").n_unique() > 2
    shown = draw_items(items, "texts", 12, 0).sort("item")
    found = rows.filter(rater="Ada", question="concept").sort("item")
    for name in ("fit", "feature_id", "sign", "text_index", "label", "text"):
        assert found[name].to_list() == shown[name].to_list()
