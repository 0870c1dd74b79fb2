"""The label that stands for a feature: of one kind for all, and no other in its place."""

import polars as pl
import pytest

from assets.labels.chosen_labels import ChosenLabel, chosen_kind, chosen_labels


def rows_of(**by_kind: tuple[str | None, str]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {"feature_id": 7, "kind": kind, "label": label, "status": status, "reason": "why"}
            for kind, (label, status) in by_kind.items()
        ]
    )


OTHERS = {
    "output": ("dates", "ok"),
    "output_minus": ("food", "ok"),
    "combined": ("week", "ok"),
    "token_summary": ("of, seven, lamp", "ok"),
}


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (("input", "output", "output_minus", "combined"), "input"),
        (("combined", "input"), "input"),
        (("output_minus", "combined", "output"), "combined"),
        (("output",), "output"),
        (("output_minus",), None),
        ((), None),
    ],
)
def test_a_study_has_one_kind_that_stands_for_its_features(
    kinds: tuple[str, ...], expected: str | None
) -> None:
    assert chosen_kind(kinds) == expected


def test_the_label_of_the_kind_is_taken() -> None:
    labels = rows_of(input=("days", "ok"), **OTHERS)
    assert chosen_labels(labels, "input") == {7: ChosenLabel("days", "input")}
    assert chosen_labels(labels, "combined") == {7: ChosenLabel("week", "combined")}


@pytest.mark.parametrize("status", ["none", "failed", "not_attempted"])
def test_no_kind_stands_in_for_another(status: str) -> None:
    chosen = chosen_labels(rows_of(input=(None, status), **OTHERS), "input")[7]
    reason = f"no input label: {status}, why"
    assert chosen == ChosenLabel(None, "input", reason, is_failed=status == "failed")


def test_features_without_a_row_of_the_kind_or_a_kind_have_no_label_and_say_why() -> None:
    chosen = chosen_labels(rows_of(**OTHERS), "input")[7]
    assert chosen.label is None and "no row" in str(chosen.reason)
    chosen = chosen_labels(rows_of(**OTHERS), None)[7]
    assert (chosen.label, chosen.kind) == (None, None) and "labels.kinds" in str(chosen.reason)
