"""Files that the lake's catalog doesn't know: activation shards, and scratch of dead processes.

Neither is touched while a study is being materialized: a capture may be under way that took over
shards before it commits the rows that name them. What runs outside of a study's lock is protected
by age (taking over a shard touches it, assets/activations/shard_removal.py) and by the locks of
scratch folders.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock

from assets.factorization.scratch_folder import GUARD, remove_leftovers

STUDY_LOCKS = "study-*.lock"


@dataclass(frozen=True)
class Removed:
    """What went, or in a dry run would go."""

    n_items: int
    n_bytes: int


def busy_studies(root: Path) -> list[str]:
    """Names of the studies that a run on this lake holds the lock of."""
    return [
        path.stem.removeprefix("study-")
        for path in sorted(root.glob(STUDY_LOCKS))
        if _is_held(path)
    ]


def remove_shards(
    folder: Path, needed: Collection[str], used_before: float, *, is_dry: bool
) -> Removed:
    """Removes shards that are not `needed` (file names) and were last used before that time [s].

    So do halves of shards that a killed process left.
    """
    from assets.activations.shard_removal import ASIDE, mend_removal, remove_shard  # brings torch

    n_items = n_bytes = 0
    if not is_dry:
        for aside in folder.glob(f"*{ASIDE}"):
            mend_removal(aside)
    for path in sorted(folder.glob("*.parquet")):
        if path.name in needed or _last_used(path) >= used_before:
            continue
        freed = path.stat().st_size if is_dry else remove_shard(path, used_before)
        if freed is not None:
            n_items, n_bytes = n_items + 1, n_bytes + freed
    for path in _halves(folder):
        if _last_used(path) < used_before:
            n_items, n_bytes = n_items + 1, n_bytes + size_of(path)
            if not is_dry:
                path.unlink(missing_ok=True)
    return Removed(n_items, n_bytes)


def remove_scratch(folder: Path, used_before: float, *, is_dry: bool) -> Removed:
    """Removes scratch folders of dead processes, as their locks say (factorization/scratch_folder).

    What has no lock beside it goes when it was last written before that time [s].
    """
    if not folder.is_dir():
        return Removed(0, 0)
    dead: dict[Path, int] = {}
    with filelock.FileLock(folder / GUARD):
        for path in sorted(folder.glob("*")):
            lock = path.with_suffix(".lock")
            if path.suffix == ".lock":
                continue
            parts = [path, *path.rglob("*")]
            if not _is_held(lock) if lock.exists() else max(map(_last_used, parts)) < used_before:
                dead[path] = sum(map(size_of, parts))
        if not is_dry:
            remove_leftovers(folder)
            for path in dead:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
    return Removed(len(dead), sum(dead.values()))


def _is_held(lock: Path) -> bool:
    """Whether another process, or another part of this one, holds a lock."""
    try:
        filelock.FileLock(lock).acquire(timeout=0).lock.release()
    except filelock.Timeout:
        return True
    return False


def _halves(folder: Path) -> Iterator[Path]:
    """Files that a killed capture left unfinished, and sidecars without their shard."""
    yield from sorted(folder.glob("*.partial"))
    for sidecar in sorted(folder.glob("*.json")):
        if not sidecar.with_suffix(".parquet").exists():
            yield sidecar


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def size_of(path: Path) -> int:
    """Bytes of a file; 0 of anything else, or nothing."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0
