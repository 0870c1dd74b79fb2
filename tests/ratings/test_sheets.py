"""Sheets are blind, mixed and the same for the same seed; what comes back wrong is named whole."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from assets.ratings.draw import RATER, blind_sheet, draw_items, drawn_groups, rating_columns
from assets.ratings.folder import (
    asked_items,
    files_hash,
    keep_key,
    read_keys,
    read_sheets,
    take_sheet,
)
from assets.ratings.frames import human_ratings_frame
from assets.ratings.items import ITEMS, Kind, label_items, text_items
from assets.ratings.sheet_files import SheetError, read_sheet, write_sheet
from assets.ratings.tables import HUMAN_RATINGS
from tests.ratings.planted_ratings import CONTROLS, N_FEATURES, judged_texts, scored_labels


def texts() -> pl.DataFrame:
    return text_items(*judged_texts(), CONTROLS)


def labels() -> pl.DataFrame:
    return label_items(*scored_labels(), CONTROLS)


ITEMS_OF: dict[Kind, Callable[[], pl.DataFrame]] = {"texts": texts, "labels": labels}


def filled(items: pl.DataFrame, kind: Kind = "texts", n: int = 12, rater: str = "Ada") -> dict:
    """A sheet's columns as lists, every item rated."""
    sheet = blind_sheet(draw_items(items, kind, n, 0), kind).to_dict(as_series=False)
    draw = random.Random(rater)
    for name in rating_columns(kind):
        sheet[name] = [str(draw.randrange(3)) for _ in sheet["item"]]
    sheet[RATER] = [rater] * len(sheet["item"])
    return sheet


def written(sheet: dict, path: Path) -> Path:
    write_sheet(pl.DataFrame(sheet), path)
    return path


def test_judged_texts_become_items_with_both_ratings_and_their_judge() -> None:
    items = texts()
    assert list(items.columns) == list(ITEMS)
    assert set(items["judge"]) == {"graded small-judge"}
    # The failed feature has no items; every other text is asked by both questions.
    assert items["item"].n_unique() == (2 * N_FEATURES - 1) * 9 and len(items) == 2 * 99
    scores = judged_texts()[1].drop_nulls("concept_rating")
    joined = items.filter(question="fluency").join(
        scores, on=["site", "fit", "feature_id", "sign", "target_kl_nats", "text_index"]
    )
    assert (joined["judge_rating"] == joined["fluency_rating"]).all() and len(joined) == 99


def test_labels_are_shown_with_held_out_contexts_and_shuffled_ones_are_controls() -> None:
    items = labels()
    assert items["item"].n_unique() == 2 * 2 * (N_FEATURES - 1)
    assert set(items["judge"]) == {"detection, negatives: random"}
    own = items.filter(feature_id=2, fit="snmf-k012", is_control=False).row(0, named=True)
    assert own["label"] == "label 2"
    assert own["text"].splitlines() == [f"0 2 held_out «{i}»" for i in range(5)]
    assert set(items.filter(fit="random-k006")["is_control"]) == {True}
    assert set(items.filter(fit="snmf-k012", label="label 5")["is_control"]) == {True}
    scores, contexts = scored_labels()
    top = label_items(scores, contexts.filter(pl.col("kind") != "held_out"), CONTROLS)
    assert " top " in top["text"][0]


@pytest.mark.parametrize("kind", ["texts", "labels"])
def test_a_sheet_tells_nothing_of_where_an_item_is_from(kind: Kind) -> None:
    drawn = draw_items(ITEMS_OF[kind](), kind, 10, seed=3)
    sheet = blind_sheet(drawn, kind)
    shown = {"item", "label", "text", "prompt"} if kind == "texts" else {"item", "label", "text"}
    assert set(sheet.columns) == shown | {*rating_columns(kind), RATER}
    for name in (*rating_columns(kind), RATER):
        assert sheet[name].null_count() == len(sheet)
    assert len(sheet) == 10 == sheet["item"].n_unique()
    assert all(item.startswith("i") and len(item) == 16 for item in sheet["item"])


@pytest.mark.parametrize("kind", ["texts", "labels"])
def test_the_place_in_a_sheet_does_not_tell_a_group(kind: Kind) -> None:
    """Over many seeds each group's mean place is the middle, and so are each fit's and sign's."""
    items = ITEMS_OF[kind]()
    # Of the key's columns, those that a sheet must not tell.
    told = pl.concat_str(
        "fit", pl.col("sign").fill_null(""), pl.col("is_control").cast(pl.String), separator=" "
    )
    group_of = dict(items.unique("item").select("item", told).iter_rows())
    places: dict[str, list[float]] = {}
    for seed in range(200):
        drawn = draw_items(items, kind, 10, seed)["item"].to_list()
        for place, item in enumerate(drawn):
            places.setdefault(group_of[item], []).append(place / (len(drawn) - 1))
    assert len(places) >= 3
    for group, found in places.items():
        # The places' deviation is that of a uniform draw of ten, 0.32; five standard errors.
        assert abs(sum(found) / len(found) - 0.5) < 5 * 0.32 / len(found) ** 0.5, group


def test_groups_have_their_shares() -> None:
    items = texts()
    drawn = draw_items(items, "texts", 12, seed=0)
    is_base, is_control = drawn["sign"] == "0", drawn["fit"].is_in(list(CONTROLS))
    assert is_base.sum() == 3 and (is_control & ~is_base).sum() == 3 and len(drawn) == 12
    of_labels = draw_items(labels(), "labels", 4, seed=0).join(labels(), on="item").unique("item")
    assert of_labels["is_control"].sum() == 1 and len(of_labels) == 4
    assert draw_items(items.clear(), "texts", 5, seed=0).is_empty()


@pytest.mark.parametrize("n", [20, 40, 1000])
@pytest.mark.parametrize("kind", ["texts", "labels"])
def test_no_text_is_asked_twice_so_a_base_text_cannot_be_known_by_coming_again(
    kind: Kind, n: int
) -> None:
    """Base texts are the same for all features: 3 different ones here, judged with 6 labels."""
    items = ITEMS_OF[kind]()
    drawn = draw_items(items, kind, n, seed=1)
    assert drawn.select("prompt", "text").is_duplicated().sum() == 0
    # 3 base texts, 5 and 6 features x 2 signs x 3 texts steered; 5 features' contexts a fit.
    n_different = 3 + 30 + 36 if kind == "texts" else 2 * (N_FEATURES - 1)
    assert len(drawn) == min(n, n_different)
    groups = {one.group: one for one in drawn_groups(items, drawn, kind, n)}
    assert sum(one.n_drawn for one in groups.values()) == len(drawn)
    if kind == "texts":
        assert (groups["base"].n_drawn, groups["base"].n_wanted) == (3, round(n / 4))
        assert groups["control"].n_drawn >= groups["control"].n_wanted or n == 1000
        # What base texts leave free, the others fill.
        assert groups["steered"].n_drawn + groups["control"].n_drawn == len(drawn) - 3
    else:
        # Half of the contexts are those of a control fit; the others have a shuffled label, too.
        assert 3 <= groups["own"].n_drawn <= 5 <= groups["control"].n_drawn


def test_a_steered_text_that_is_a_base_text_is_asked_once() -> None:
    """Weak steering often leaves a text as it was; spaces do not make it another one."""
    items = texts()
    base = items.filter(sign="0", text=" base 1")["text"][0]
    same = pl.when((pl.col("sign") == "+") & (pl.col("text_index") == 1))
    changed = items.with_columns(text=same.then(pl.lit(f"{base}  ")).otherwise("text"))
    drawn = draw_items(changed, "texts", 1000, seed=0)
    assert drawn["text"].str.strip_chars().n_unique() == len(drawn) == 69 - 11
    assert set(drawn.filter(pl.col("text").str.strip_chars() == "base 1")["sign"]) == {"0"}


def test_the_same_seed_gives_the_same_sheet_from_rows_in_any_order() -> None:
    one = draw_items(texts(), "texts", 10, seed=1)
    other = draw_items(texts().sample(fraction=1.0, shuffle=True, seed=4), "texts", 10, seed=1)
    assert one.equals(other)
    assert set(draw_items(texts(), "texts", 10, seed=2)["item"]) != set(one["item"])


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
