"""What is a label, what says that there is none, and what refuses to answer."""

from __future__ import annotations

import json

import pytest

from assets.labels.config import LabelsConfig
from assets.labels.label_candidates import read_candidates
from assets.labels.label_tasks import label_rows, requests_of
from assets.labels.label_texts import MOST_CHARACTERS, clean_label
from assets.labels.tables import LABELS
from tests.labels.test_label_tasks import CONTEXTS, EMBEDDED, PARTITION, reply, tasks_for

KINDS = LabelsConfig(kinds=("input",), rerank="none")


@pytest.mark.parametrize(
    "text",
    [
        "none",
        " None. ",
        '"TRASH"',
        "[trash]",
        "**None**",
        "",
        "\n",
        "N/A",
        "Results: TRASH",
        "Results:\n- Connection: TRASH",
        "Label: none",
        "Trash: no connection",
        "TRASH - mixed tokens",
        "None (unrelated words)",
        "none, no common theme",
        "No clear pattern",
        "No clear or consistent theme",
        "No common theme among the words.",
        "No discernible pattern; the tokens are fragments",
        "There is no clear theme",
        "no theme or pattern found",
        "Nothing in common",
        "None of the above",
        "None of the words share a theme",
        "The words have nothing in common",
        "random words",
        "a mix of unrelated words",
        "miscellaneous and unrelated terms",
        "Unable to identify any clear pattern",
        "I'm sorry, but I cannot determine a common theme",
    ],
)
def test_saying_that_there_is_no_theme_is_no_label(text: str) -> None:
    assert clean_label(text) is None


@pytest.mark.parametrize(
    "label",
    [
        "none-type errors",
        "None, NoneType and null",
        "none, no and never",
        "the word none",
        "nothing but the truth",
        "null pointers",
        "garbage collection",
        "None of the above-ground pools",
        "trash cans and recycling",
        "trash: waste and recycling",
        "trash, rubbish, waste",
        "no parking signs",
        "no connection errors",
        "no link between vaccines and autism",
        "random variables",
        "random number generators",
        "mixed martial arts",
        "various artists",
        "unknown variables in equations",
        "words of the week",
        "results of football games",
        "apologies and sorry",
        "I'm sorry",
        "C#",
    ],
)
def test_a_label_with_such_a_word_in_it_stays_as_it_is(label: str) -> None:
    assert clean_label(label) == label


def test_labels_are_one_clean_short_line() -> None:
    assert clean_label(' "days\n of  the week". ') == "days of the week"
    assert clean_label("week " * 100) == ("week " * 100)[:MOST_CHARACTERS].strip()


def test_each_sort_of_answer_has_its_status_and_a_reason() -> None:
    answers = ["days of the week", "Trash: no connection", "I'm sorry, I can't help with that"]
    for text, status, label in zip(answers, ["ok", "none", "failed"], answers, strict=True):
        tasks = tasks_for(EMBEDDED, [0], KINDS)
        replies = [reply(one, json.dumps({"label": text})) for one in requests_of(tasks)]
        rows = label_rows(tasks, replies, CONTEXTS, KINDS, all_features=[0], beyond="")
        row = LABELS.conform(rows, PARTITION).filter(kind="input").row(0, named=True)
        assert row["status"] == status
        assert row["label"] == (label if status == "ok" else None)
        assert (row["reason"] is None) == (status == "ok")
        if status == "failed":
            assert row["reason"] == f"refused in place of a label: {text!r}"


def test_a_refusal_is_no_candidate() -> None:
    (task,) = tasks_for(EMBEDDED, [0], KINDS)
    texts = ["days", "As an AI language model, I cannot say.", "weekdays"]
    replies = [reply(task.requests[0], json.dumps({"label": text})) for text in texts]
    assert [one.label for one in read_candidates(replies)] == ["days", "weekdays"]
