"""Removes shards that no kept version of the lake names, beside captures that may be under way.

A capture takes over shards that lie in the folder, whoever wrote them. `complete_shard` touches a
shard, then reads its sidecar; here the sidecar goes aside first, then the time of the last touch is
read. So whichever comes first, either the capture finds no shard and writes it anew, or the touch
is seen and the shard stays. Which shards are needed is resources/maintenance.py.
"""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock

from assets.activations.shards import PUBLISH_LOCK, sidecar_of

ASIDE = ".removing"


def remove_shard(path: Path, used_before: float) -> int | None:
    """Removes a shard last used before that time [s since 1970]; bytes freed, None if it stays."""
    sidecar = sidecar_of(path)
    aside = sidecar.with_name(sidecar.name + ASIDE)
    with FileLock(path.parent / PUBLISH_LOCK):
        mend_removal(aside)
        if sidecar.exists():
            os.replace(sidecar, aside)
        try:
            state = path.stat()
        except FileNotFoundError:
            aside.unlink(missing_ok=True)
            return None
        if state.st_mtime >= used_before:
            mend_removal(aside)
            return None
        path.unlink()
        aside.unlink(missing_ok=True)
        return state.st_size


def mend_removal(aside: Path) -> None:
    """Puts a sidecar back, that was set aside for a removal which stayed undone (killed, say)."""
    sidecar = aside.with_name(aside.name.removesuffix(ASIDE))
    if aside.exists():
        if sidecar.exists():
            aside.unlink()
        else:
            os.replace(aside, sidecar)
