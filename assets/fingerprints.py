"""Fingerprints: short hashes that change when code or configuration changes.

A stage's code version is a hash over its own pure modules and prompts and those of `shared`, so
nobody has to remember to raise a number. Pure; no Dagster.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from pydantic import BaseModel

ASSETS_FOLDER = Path(__file__).parent
DIGITS = 16


@functools.cache
def code_version(stage: str) -> str:
    """Hash over the source files of a stage and of assets/shared (16 hex digits)."""
    digest = hashlib.sha256()
    for folder in (ASSETS_FOLDER / "shared", ASSETS_FOLDER / stage):
        files = sorted(path for path in folder.rglob("*") if path.suffix in {".py", ".jsonl"})
        for path in files:
            digest.update(path.relative_to(ASSETS_FOLDER).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:DIGITS]


def fingerprint(stage: str, *parts: BaseModel | str | None) -> str:
    """Hash of a stage's code version and of the configuration that one partition was made with."""
    digest = hashlib.sha256(code_version(stage).encode())
    for part in parts:
        text = part.model_dump_json() if isinstance(part, BaseModel) else repr(part)
        digest.update(text.encode())
    return digest.hexdigest()[:DIGITS]
