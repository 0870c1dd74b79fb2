"""Code versions: hashes of source files that change when what the code does may change.

A version covers the modules named and every module of this project that they import, directly or
not, so an edit anywhere underneath counts. Comments, docstrings, layout and the `description=` of
options do not. Left out are prompts, which have versions of their own (labels/prompt.py), the
declarations of tables, definitions, plots and progress: none of them makes a number.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

PACKAGE = "assets"
ASSETS_FOLDER = Path(__file__).resolve().parent.parent
# Modules whose content has versions of its own, or makes no number.
NOT_HASHED = {"__init__", "definitions", "prompts", "tables", "plots", "progress"}
TABLES_SUFFIX = "_tables"
DIGITS = 16
# Where statements stand in statements: `match` has cases, `try` has handlers.
BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


def modules_hash(names: Iterable[str]) -> str:
    """Hash (16 hex digits) of the modules (`assets.room.module`) and all they import.

    Of `resources` only the modules that are named count.
    """
    digest = hashlib.sha256()
    for name in sorted(imported_closure(names)):
        digest.update(f"{name}:{_hash_and_imports(name)[0]};".encode())
    return digest.hexdigest()[:DIGITS]


def imported_closure(names: Iterable[str]) -> set[str]:
    """The modules and, transitively, the modules of assets/ that they import."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found or not _is_pure(name):
            continue
        found.add(name)
        waiting.extend(imports_of(name))
    return found


def imports_of(name: str) -> frozenset[str]:
    """Modules of the project that a module imports, at its top or inside functions."""
    return _hash_and_imports(name)[1]


def imports_in_function(module: str, function: str) -> frozenset[str]:
    """Modules of the project that one function of a module imports inside its body."""
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return frozenset(_imports_in(node))
    raise ValueError(f"module {module} has no function {function!r}")


def _imports_in(tree: ast.AST) -> Iterator[str]:
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from package import module` names modules as well.
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            if name.split(".")[0] == PACKAGE and _path(name).is_file():
                yield name


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """The statements of a module or a block; expressions, where no import stands, are left out."""
    for block in BLOCKS:
        for statement in getattr(node, block, ()):
            yield statement
            yield from _statements(statement)


def _is_pure(name: str) -> bool:
    """Whether a module's code is hashed: in a room, and one that makes numbers."""
    room, _, module = name.removeprefix(f"{PACKAGE}.").rpartition(".")
    makes_numbers = module not in NOT_HASHED and not module.endswith(TABLES_SUFFIX)
    return bool(room) and makes_numbers and _path(name).is_file()


@functools.cache
def _hash_and_imports(name: str) -> tuple[str, frozenset[str]]:
    tree = _tree(name)
    said: list[str] = []
    _dump(tree, said)
    digest = hashlib.sha256("".join(said).encode()).hexdigest()
    return digest[:DIGITS], frozenset(_imports_in(tree))


def _dump(node: Any, said: list[str]) -> None:
    """What ast.dump says of a tree, without what no computation reads: docstrings, descriptions.

    Written out since ast.dump with a transformer takes twice as long, and every command that loads
    definitions waits for it.
    """
    if isinstance(node, ast.AST):
        kind = type(node)
        said.append(f"{kind.__name__}(")
        separator = ""
        for field in kind._fields:
            value = getattr(node, field, None)
            if value is None and getattr(kind, field, ...) is None:
                continue
            said.append(f"{separator}{field}=")
            _dump(value, said)
            separator = ", "
        said.append(")")
    elif isinstance(node, list):
        said.append("[")
        separator = ""
        for item in node:
            if not _says_nothing(item):
                said.append(separator)
                _dump(item, said)
                separator = ", "
        said.append("]")
    else:
        said.append(repr(node))


def _says_nothing(node: Any) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return isinstance(node, ast.keyword) and node.arg == "description"


def _tree(name: str) -> ast.Module:
    return ast.parse(_path(name).read_text(encoding="utf-8"))


def _path(name: str) -> Path:
    package, *parts = name.split(".")
    folder = ASSETS_FOLDER if package == PACKAGE else ASSETS_FOLDER.parent / package
    return folder.joinpath(*parts).with_suffix(".py")
