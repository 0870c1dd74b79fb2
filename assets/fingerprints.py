"""The code version of a stage: its pure modules, and what they and its definitions import.

Nobody has to remember to raise a number. What is hashed and what is not: shared/code_hash.py.
"""

from __future__ import annotations

import functools
import hashlib

from pydantic import BaseModel

from assets.shared.code_hash import ASSETS_FOLDER, imports_of, modules_hash


@functools.cache
def code_version(stage: str, modules: tuple[str, ...] | None = None) -> str:
    """Hash (16 hex digits) over a stage's code; of `modules` alone where some of it is meant."""
    return modules_hash(stage_modules(stage) if modules is None else modules)


@functools.cache
def version_of_modules(modules: tuple[str, ...]) -> str:
    """Hash (16 hex digits) over modules outside of assets/, and what they import of it."""
    return modules_hash(modules)


def stage_modules(stage: str) -> set[str]:
    """The modules of a stage's room, and those that its definitions import."""
    names = {
        f"assets.{stage}.{path.stem}"
        for path in (ASSETS_FOLDER / stage).glob("*.py")
        if path.stem not in {"__init__", "definitions"}
    }
    return names | imports_of(f"assets.{stage}.definitions")


def fingerprint(stage: str, *parts: BaseModel | str | None) -> str:
    """Hash of a stage's code version and of the configuration that one partition was made with."""
    digest = hashlib.sha256(code_version(stage).encode())
    for part in parts:
        text = part.model_dump_json() if isinstance(part, BaseModel) else repr(part)
        digest.update(text.encode())
    return digest.hexdigest()[:16]
