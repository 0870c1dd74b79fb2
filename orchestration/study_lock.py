"""The lock of a study on a lake: who holds it may write the study's rows, nobody else does then.

It is a file's, so the system frees it with the process that holds it.
"""

from pathlib import Path

import filelock

# Maintenance looks at the lock for an instant.
LOCK_SECONDS = 1.0


def study_lock(study: str, lake_root: Path) -> filelock.FileLock:
    """The study's lock; taking it raises filelock.Timeout while another run has it."""
    lake_root.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(lake_root / f"study-{study}.lock", timeout=LOCK_SECONDS)
