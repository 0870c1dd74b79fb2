"""Memory that a streamed fit frees goes back to the system at once, so its peak is what it holds.

Allocators keep what is freed, to hand it out again. Two do so here, and each keeps about a shard:

- Arrow's own pool, which reads shards: emptied after each read;
- glibc's malloc, of which NumPy and PyTorch have theirs. It maps blocks above a threshold one by
  one and unmaps them when freed, but raises that threshold up to 32 MiB with each such block freed,
  and cuts smaller ones from a heap with holes. During a fit the threshold is fixed below the
  matrices of a shard (mallopt(3), M_MMAP_THRESHOLD), and afterwards where it grows to by itself.

Another malloc is left alone, and so is a threshold chosen by MALLOC_MMAP_THRESHOLD_.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

import pyarrow as pa

# <malloc.h>
M_MMAP_THRESHOLD = -3
THRESHOLD_OF_FITS = 1_000_000
LARGEST_THRESHOLD = 32 * 2**20


@contextlib.contextmanager
def giving_back() -> Iterator[None]:
    """Within it, malloc gives larger blocks back when they are freed; for the whole process."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    mallopt = getattr(libc, "mallopt", None)
    if mallopt is None or "MALLOC_MMAP_THRESHOLD_" in os.environ:
        yield
        return
    mallopt(M_MMAP_THRESHOLD, THRESHOLD_OF_FITS)
    give_back_unused()
    try:
        yield
    finally:
        mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)


def give_back_unused() -> None:
    """What Arrow's pool and malloc's heap hold and nobody uses."""
    pa.default_memory_pool().release_unused()
    # Where there is glibc, this one trims malloc's heap.
    pa.system_memory_pool().release_unused()
