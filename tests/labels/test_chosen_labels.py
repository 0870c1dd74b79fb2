"""The label that stands for a feature: input, output, then tokens; never in place of a failure."""

import polars as pl
import pytest

from assets.labels.chosen_labels import chosen_labels


def rows_of(**by_kind: tuple[str | None, str]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {"feature_id": 7, "kind": kind, "label": label, "status": status, "reason": "why"}
            for kind, (label, status) in by_kind.items()
        ]
    )


SUMMARY = ("monday, friday", "ok")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ({"input": ("days", "ok"), "output": ("dates", "ok")}, ("days", "input")),
        ({"input": (None, "none"), "output": ("dates", "ok")}, ("dates", "output")),
        ({"input": (None, "failed"), "output": ("dates", "ok")}, (None, None)),
        ({"input": (None, "not_attempted"), "output": ("dates", "ok")}, (None, None)),
        ({"input": (None, "none"), "output": (None, "none")}, (SUMMARY[0], "token_summary")),
        ({"input": (None, "none"), "output": (None, "failed")}, (None, None)),
        ({"input": (None, "not_attempted"), "output": (None, "not_attempted")}, (None, None)),
        ({"input": ("days", "ok"), "output": (None, "failed")}, ("days", "input")),
        # What subtracting it promotes is no name of the feature, failed or not.
        ({"input": (None, "none"), "output_minus": ("food", "ok")}, (SUMMARY[0], "token_summary")),
        ({"output_minus": (None, "failed")}, (SUMMARY[0], "token_summary")),
    ],
)
def test_which_label_is_chosen(rows: dict, expected: tuple) -> None:
    chosen = chosen_labels(rows_of(token_summary=SUMMARY, **rows))[7]
    assert (chosen.label, chosen.kind) == expected
    assert (chosen.reason is None) == (chosen.label is not None)


def test_a_failure_is_told_from_what_was_not_asked() -> None:
    failed = chosen_labels(rows_of(input=(None, "none"), output=(None, "failed")))[7]
    assert failed.is_failed and failed.reason == "no output label: failed, why"
    assert not chosen_labels(rows_of(input=(None, "not_attempted")))[7].is_failed


def test_without_evidence_there_is_none() -> None:
    chosen = chosen_labels(rows_of(token_summary=(None, "none"), input=(None, "none")))[7]
    assert chosen.label is None and chosen.reason is not None
