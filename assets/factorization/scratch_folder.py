"""A folder for a process's scratch files, which does not outlive the process for long.

A folder goes when it is closed. A killed process can't close its own, so each one is named by a
file beside it, `<name>.lock`, whose lock the system frees with the process: whoever makes the next
folder in the same place removes those whose lock is free. One more lock, `scratch.lock`, is held
while folders are made and removed, so that no folder is seen without its lock.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

GUARD = "scratch.lock"
PREFIX = "coefficients-"


class ScratchFolder:
    """An empty folder in `parent`, there until `close` or the end of a `with` block."""

    def __init__(self, parent: Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        self._guard = FileLock(parent / GUARD)
        self.path = parent / f"{PREFIX}{uuid.uuid4().hex}"
        self._lock = _lock_of(self.path)
        with self._guard:
            remove_leftovers(parent)
            self._lock.acquire()
            self.path.mkdir()

    def close(self) -> None:
        """Remove the folder; a second call does nothing."""
        with self._guard:
            _remove(self.path, self._lock)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def remove_leftovers(parent: Path) -> None:
    """Remove folders whose process is gone. The caller holds the guard."""
    for file in parent.glob(f"{PREFIX}*.lock"):
        lock = _lock_of(file.with_suffix(""))
        with contextlib.suppress(Timeout):
            lock.acquire(blocking=False)
            _remove(file.with_suffix(""), lock)


def _remove(folder: Path, lock: FileLock) -> None:
    """What can't be removed now keeps its lock file, so that the next one tries again."""
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()
    if not folder.exists():
        Path(lock.lock_file).unlink(missing_ok=True)


def _lock_of(folder: Path) -> FileLock:
    # A store may be closed by another thread than the one that made it.
    return FileLock(folder.with_suffix(".lock"), thread_local=False)
