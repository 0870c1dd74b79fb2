"""`make sql` runs what it is given, quotes and all, and cannot change the lake."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from assets.corpus.tables import DOCUMENTS
from orchestration.run_study import NEXT_QUERY
from orchestration.sql_shell import QUERY_VARIABLE
from resources.lake import Lake
from resources.lake_commit import Commit

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    lake = Lake(tmp_path / "lake")
    lake.replace(
        {DOCUMENTS: DOCUMENTS.empty().drop("study")}, {"study": "x"}, Commit("documents", "x", "r")
    )
    lake.close()
    return {**os.environ, "FEATURELAKE_LAKE": str(tmp_path / "lake")}


def shell(environment: dict[str, str], query: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestration.sql_shell"],
        cwd=PROJECT,
        env={**environment, QUERY_VARIABLE: query},
        capture_output=True,
        text=True,
    )


def test_make_hands_the_query_over_as_it_is(environment: dict[str, str], tmp_path: Path) -> None:
    query = """SELECT 'a "b" `c`' AS "two words",
       41 + 1 AS answer"""
    done = subprocess.run(
        ["make", "--silent", "sql", f"Q={query}"],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert 'a "b" `c`' in done.stdout and "two words" in done.stdout and "42" in done.stdout


def test_the_lake_cannot_be_changed(environment: dict[str, str]) -> None:
    done = shell(environment, "DELETE FROM documents")
    assert "read-only" in done.stdout + done.stderr


def test_a_missing_lake_is_said(tmp_path: Path) -> None:
    done = shell({**os.environ, "FEATURELAKE_LAKE": str(tmp_path / "none")}, NEXT_QUERY)
    assert done.returncode == 1 and "run `make demo`" in done.stderr
