"""Scratch folders of dead processes go; those of living ones stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from assets.factorization.scratch_folder import GUARD, ScratchFolder

KEEPER = """
import sys, time
from pathlib import Path
import torch
from assets.factorization.token_blocks import MatrixBlocks, ScratchStore

blocks = MatrixBlocks(torch.ones(20, 4))
with ScratchStore(blocks, 3, torch.zeros(0), Path(sys.argv[1])) as store:
    store.save(0, torch.ones(3, 20))
    Path(sys.argv[2]).touch()
    time.sleep(600)
"""


def keeper(folder: Path, ready: Path) -> subprocess.Popen[bytes]:
    """A process that has written scratch files and holds them."""
    process = subprocess.Popen([sys.executable, "-c", KEEPER, str(folder), str(ready)])
    deadline = time.monotonic() + 120
    while not ready.exists():
        assert process.poll() is None, "the keeper ended before it was ready"
        assert time.monotonic() < deadline, "the keeper wrote nothing in two minutes"
        time.sleep(0.05)
    return process


def folders(place: Path) -> set[str]:
    return {path.name for path in place.iterdir() if path.is_dir()}


def names(place: Path) -> set[str]:
    return {path.name for path in place.iterdir()}


def test_a_killed_process_leaves_its_files_to_the_next_and_a_living_one_keeps_its_own(tmp_path):
    place = tmp_path / "scratch"
    killed = keeper(place, tmp_path / "one")
    of_killed = folders(place)
    living = keeper(place, tmp_path / "two")
    try:
        of_living = folders(place) - of_killed
        assert len(of_killed) == len(of_living) == 1, "a folder of a living process was removed"
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        (left,) = of_killed
        assert list((place / left).iterdir()), "the killed process should leave its files behind"
        with ScratchFolder(place) as own:
            assert folders(place) == of_living | {own.name}
            assert f"{left}.lock" not in names(place)
        assert folders(place) == of_living
        (kept,) = of_living
        assert list((place / kept).iterdir())
    finally:
        for process in (killed, living):
            process.kill()
            process.wait()
    ScratchFolder(place).close()
    assert names(place) == {GUARD}


def test_folders_of_one_process_do_not_remove_each_other(tmp_path):
    with ScratchFolder(tmp_path) as one, ScratchFolder(tmp_path) as two:
        assert folders(tmp_path) == {one.name, two.name}
    assert names(tmp_path) == {GUARD}


def test_a_folder_goes_after_an_error_and_closing_twice_is_nothing(tmp_path):
    folder = ScratchFolder(tmp_path)
    with pytest.raises(RuntimeError, match="in between"), folder as path:
        (path / "file").write_text("x")
        raise RuntimeError("in between")
    folder.close()
    assert names(tmp_path) == {GUARD}
