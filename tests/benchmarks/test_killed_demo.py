"""The demo with its embedded LLM, killed at 20 random points, against one that never was.

Points are drawn over marks, as in tests/killed_runs.py: files that the run writes and answers that
it keeps. A trigger in the file of saved answers notes each that is handed in, so that one made
twice is seen though the file keeps the first.
"""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from killed_runs import LONGEST_DELAY_SECONDS, kill_points
from lake_contents import contents, differing_columns, total
from separate_process import PROJECT, SeparateProcess

from resources.llm_cache import FILE_NAME, LlmCache

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(4 * 3600)]
Report = Callable[[str], None]
N_KILLS = 20


def demo_in(folder: Path, cache_folder: Path) -> SeparateProcess:
    place = SeparateProcess(folder, cache_folder)
    (place.studies / "demo.yaml").write_text((PROJECT / "studies" / "demo.yaml").read_text())
    return place


def note_answers(place: SeparateProcess) -> Path:
    """The lake's file of saved answers, made beforehand, which notes all that are handed in."""
    folder = place.lake_root / "llm_cache"
    LlmCache(folder)
    path = folder / FILE_NAME
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE handed_in (request_hash TEXT)")
        database.execute(
            "CREATE TRIGGER note BEFORE INSERT ON answers "
            "BEGIN INSERT INTO handed_in VALUES (NEW.request_hash); END"
        )
        database.commit()
    return path


def handed_in(path: Path) -> Counter[str]:
    with closing(sqlite3.connect(path)) as database:
        return Counter(h for (h,) in database.execute("SELECT request_hash FROM handed_in"))


def test_a_second_answer_to_a_request_is_seen(tmp_path: Path) -> None:
    """The control: the file keeps the first, and the note tells of both."""
    path = note_answers(SeparateProcess(tmp_path, tmp_path))
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for text in ("first", "second"):
            database.execute(
                "INSERT OR IGNORE INTO answers "
                "(request_hash, model, text, seconds, first_token_logprobs) "
                "VALUES ('h', 'm', ?, 0.0, '[]')",
                [text],
            )
        assert database.execute("SELECT text FROM answers").fetchall() == [("first",)]
    assert handed_in(path) == {"h": 2}


def test_the_demo_killed_at_random_points(
    report: Report, tmp_path: Path, cache_folder: Path
) -> None:
    whole = demo_in(tmp_path / "whole", cache_folder)
    answers = note_answers(whole)
    finished = whole.run("demo")
    n_calls = total(finished.ledger, "llm_calls_made")
    n_marks = whole.n_files() + handed_in(answers).total()
    with whole.lake() as lake:
        expected = contents(lake)
    report(f"never killed: {finished.seconds:.0f} s, {n_calls} LLM calls")

    place = demo_in(tmp_path / "killed", cache_folder)
    answers = note_answers(place)
    rng = random.Random(0)
    shares = []
    for share in kill_points(N_KILLS, rng):

        def is_reached(wanted: float = share * n_marks) -> bool:
            return place.n_files() + handed_in(answers).total() >= wanted

        if place.run_and_kill("demo", is_reached, rng.uniform(0, LONGEST_DELAY_SECONDS)):
            shares.append(share)
    ended = place.run("demo")
    twice = [h for h, n in handed_in(answers).items() if n > 1]
    with place.lake() as lake:
        differing = differing_columns(contents(lake), expected)
    report(
        f"killed {len(shares)} times, at {', '.join(f'{share:.0%}' for share in shares)}, then run "
        f"to its end in {ended.seconds:.0f} s: {len(expected) - len(differing)} of {len(expected)} "
        f"tables as if never killed; {len(twice)} answers made twice"
    )
    for table, columns in differing.items():
        report(f"    {table}: {', '.join(columns)}")
    assert len(shares) == N_KILLS
    assert differing == {}
    assert twice == []
    assert place.unfinished_runs() == []
    assert place.unreported() == []
