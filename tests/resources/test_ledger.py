"""The ledger gives back the newest state of each asset partition, and never loses a row."""

from dataclasses import replace
from pathlib import Path

import pytest

from assets.ledger.tables import DECISIONS, RUN_LEDGER
from resources.lake import Lake
from resources.lake_commit import Commit
from resources.ledger import MOST_ATTEMPTS, Entry, Ledger, ledger_frame, versions_in

STATE = Entry(
    study="demo",
    run_id="run-1",
    asset="labels",
    partition="site | fit",
    decision="computed",
    reason="first time",
    fingerprint="f1",
    parts={"code": "c1", "settings.labels.seed": "0"},
    versions={"labels": {"label": "v1"}, "label_scores": {"auroc": "v2"}},
    rows_out=3,
    rows_to_retry=0,
    attempt=1,
    llm_calls_made=2,
    usd=0.25,
)
SKIPPED = replace(STATE, run_id="run-2", decision="skipped", versions=None, parts=None, usd=None)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(Lake(tmp_path / "lake"))


def test_a_state_comes_back_as_it_was_written(ledger: Ledger) -> None:
    assert ledger.states_of("site | fit").get(("labels", "site | fit")) is None
    ledger.append([STATE], run_id="run-1")
    assert ledger.states_of("site | fit").get(("labels", "site | fit")) == STATE
    assert ledger.states() == {("labels", "site | fit"): STATE}
    assert ledger.states("demo") == ledger.states() and ledger.states("other") == {}
    states = ledger.states_of("site | fit").values()
    assert versions_in(states, "label_scores") == {"auroc": "v2"}
    assert versions_in(states, "contexts") is None
    assert ledger.states_of("elsewhere") == {}


def test_the_newest_state_counts_and_rows_without_versions_are_none(ledger: Ledger) -> None:
    ledger.append([STATE], run_id="run-1")
    ledger.append([SKIPPED], run_id="run-2")
    assert ledger.states_of("site | fit").get(("labels", "site | fit")) == STATE
    newer = replace(STATE, fingerprint="f2", run_id="run-3")
    ledger.append([newer], run_id="run-3")
    assert ledger.states_of("site | fit").get(("labels", "site | fit")) == newer
    assert len(ledger.lake.read(RUN_LEDGER)) == 3
    assert ledger.decisions_in("run-2") == {"labels": "skipped"}


def test_an_append_of_nothing_makes_no_snapshot(ledger: Ledger) -> None:
    before = len(ledger.lake.snapshots())
    ledger.append([], run_id="run-1")
    assert len(ledger.lake.snapshots()) == before
    ledger.append([STATE, SKIPPED], run_id="run-1")
    assert len(ledger.lake.snapshots()) == before + 1


def test_what_runs_spent_is_added_up(ledger: Ledger) -> None:
    ledger.append([STATE, replace(STATE, asset="detection"), SKIPPED], run_id="run-1")
    assert ledger.spent_in("run-1") == {"calls": 4, "usd": 0.5}
    assert ledger.spent_in("run-1", "run-2") == {"calls": 6, "usd": 0.5}
    assert ledger.spent_in("nobody") == {"calls": 0, "usd": 0.0}


def test_rows_that_failed_are_tried_again_a_few_times() -> None:
    attempts = [replace(STATE, rows_to_retry=1, attempt=n) for n in range(1, MOST_ATTEMPTS + 2)]
    wants = [entry.wants_retry for entry in attempts]
    assert wants == [True] * (MOST_ATTEMPTS - 1) + [False, False]
    assert not STATE.wants_retry


def test_a_row_stands_in_the_snapshot_of_the_data_that_it_tells_of(ledger: Ledger) -> None:
    lake = ledger.lake

    def told(snapshot: int) -> dict:
        return {RUN_LEDGER: ledger_frame([replace(STATE, data_snapshot=snapshot)])}

    snapshot = lake.replace({}, {}, Commit("labels", "site | fit", "run-1"), appended=told)
    written = lake.query("SELECT snapshot_id, data_snapshot FROM run_ledger").row(0)
    assert written == (snapshot, snapshot)


def test_the_data_dictionary_names_every_decision() -> None:
    (column,) = [column for column in RUN_LEDGER.columns if column.name == "decision"]
    assert all(decision in column.description for decision in DECISIONS)
