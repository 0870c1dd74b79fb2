"""Sheets are blind, mixed and the same for the same seed."""

from __future__ import annotations

import polars as pl
import pytest

from assets.ratings.draw import RATER, blind_sheet, draw_items, drawn_groups, rating_columns
from assets.ratings.items import ITEMS, Kind, label_items
from tests.ratings.filled_sheets import ITEMS_OF, labels, texts
from tests.ratings.planted_ratings import CONTROLS, N_FEATURES, judged_texts, scored_labels


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
