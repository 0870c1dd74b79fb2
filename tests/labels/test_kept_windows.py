"""A label is scored on no document and no words that its labeller saw; the check names the row."""

from __future__ import annotations

import polars as pl
import pytest

from assets.labels.asked_texts import check_disjoint

SHOWN = "The council voted on Monday to close the old bridge over the river"
OTHER = "Rain is due by noon, said the man who sells ice by the pier"


def contexts(kind: str, text: str, feature_id: int = 3, document_id: str = "d9") -> pl.DataFrame:
    rows = [
        (3, "top", 0, "d0", SHOWN),
        (3, "near_miss", 0, "d1", "a kettle boiled over on the stove as the old dog slept"),
        (feature_id, kind, 4, document_id, text),
    ]
    names = ["feature_id", "kind", "rank_in_kind", "document_id", "text"]
    return pl.DataFrame(rows, schema=names, orient="row")


@pytest.mark.parametrize("kind", ["held_out", "negative", "hard_negative"])
@pytest.mark.parametrize(
    "text",
    [
        SHOWN.upper() + "!",
        f"once more {SHOWN[4:50]}",
        "A kettle boiled over on the stove, as the old dog slept",
    ],
)
def test_words_that_were_shown_are_an_error_that_names_the_row(kind: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"1 contexts .*feature 3, {kind} 4, document d9.*again"):
        check_disjoint(contexts(kind, text))


def test_other_words_and_other_features_are_none() -> None:
    check_disjoint(contexts("held_out", OTHER))
    check_disjoint(contexts("held_out", SHOWN, feature_id=4))
    check_disjoint(contexts("sampled", SHOWN))


def test_a_document_that_was_shown_is_one_whatever_its_words() -> None:
    with pytest.raises(ValueError, match="1 documents to score labels on were shown"):
        check_disjoint(contexts("held_out", OTHER, document_id="d0"))
