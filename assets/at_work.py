"""A lock for each step that is at work, which the system frees when its process dies.

Dagster does not notice that a run was killed: it stays "started", and a step of it keeps its slot
of a pool. A lock tells the dead from the living (orchestration/dead_runs.py), whatever process ids
were given out again since. Beside the lock lies a mark, which is made after the lock was had and
goes before it is let go: a mark whose lock is free was left by a death. Both lie in the folder of
the Dagster instance, which knows the runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import dagster as dg
import filelock

FOLDER = "at_work"
MARK = ".mark"
LOCK = ".lock"
# Carried by the runs that a main run makes in its own process: the main run's id.
MAIN_RUN_TAG = "featurelake/main_run"

State = Literal["at work", "ended", "dead"]


@contextlib.contextmanager
def at_work(instance: dg.DagsterInstance, run_id: str, step: str) -> Iterator[None]:
    """Says that a step of a run is at work in this process."""
    mark = _folder(instance) / f"{run_id}.{step}{MARK}"
    mark.parent.mkdir(parents=True, exist_ok=True)
    lock = mark.with_suffix(LOCK)
    with filelock.FileLock(lock):
        mark.touch()
        try:
            yield
        finally:
            mark.unlink(missing_ok=True)
    lock.unlink(missing_ok=True)


def states_of_steps(instance: dg.DagsterInstance, run_id: str) -> list[State]:
    """How the steps of a run are that have begun and not ended."""
    return [_state(mark) for mark in _folder(instance).glob(f"{run_id}.*{MARK}")]


def forget_steps(instance: dg.DagsterInstance, run_id: str) -> None:
    """Removes what a dead run left."""
    for path in _folder(instance).glob(f"{run_id}.*"):
        path.unlink(missing_ok=True)


def _state(mark: Path) -> State:
    path = mark.with_suffix(LOCK)
    try:
        with filelock.FileLock(path, timeout=0):
            if mark.exists():
                return "dead"
            path.unlink(missing_ok=True)
            return "ended"
    except filelock.Timeout:
        return "at work"


def _folder(instance: dg.DagsterInstance) -> Path:
    return Path(instance.root_directory) / FOLDER
