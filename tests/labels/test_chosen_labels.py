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
        ({"input": (None, "failed"), "output": ("dates", "ok")}, ("dates", "output")),
        ({"input": (None, "none"), "output": (None, "none")}, (SUMMARY[0], "token_summary")),
        ({"input": (None, "none"), "output": (None, "failed")}, (None, None)),
        ({"input": (None, "not_attempted"), "output": (None, "not_attempted")}, (None, None)),
    ],
)
def test_which_label_is_chosen(rows: dict, expected: tuple) -> None:
    chosen = chosen_labels(rows_of(token_summary=SUMMARY, **rows))[7]
    assert (chosen.label, chosen.kind) == expected
    assert (chosen.reason is None) == (chosen.label is not None)


def test_without_evidence_there_is_none() -> None:
    chosen = chosen_labels(rows_of(token_summary=(None, "none"), input=(None, "none")))[7]
    assert chosen.label is None and chosen.reason is not None
