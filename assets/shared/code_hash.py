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

PACKAGE = "assets"
ASSETS_FOLDER = Path(__file__).resolve().parent.parent
# Modules whose content has versions of its own, or makes no number.
NOT_HASHED = {"__init__", "definitions", "prompts", "tables", "plots", "progress"}
TABLES_SUFFIX = "_tables"
DIGITS = 16


def modules_hash(names: Iterable[str]) -> str:
    """Hash (16 hex digits) of the modules (`assets.room.module`) and all they import.

    Of `resources` only the modules that are named count.
    """
    digest = hashlib.sha256()
    for name in sorted(imported_closure(names)):
        digest.update(f"{name}:{_source_hash(name)};".encode())
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


@functools.cache
def imports_of(name: str) -> frozenset[str]:
    """Modules of the project that a module imports, at its top or inside functions."""
    return frozenset(_imports_in(_tree(name)))


def imports_in_function(module: str, function: str) -> frozenset[str]:
    """Modules of the project that one function of a module imports inside its body."""
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return frozenset(_imports_in(node))
    raise ValueError(f"module {module} has no function {function!r}")


def _imports_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
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


def _is_pure(name: str) -> bool:
    """Whether a module's code is hashed: in a room, and one that makes numbers."""
    room, _, module = name.removeprefix(f"{PACKAGE}.").rpartition(".")
    makes_numbers = module not in NOT_HASHED and not module.endswith(TABLES_SUFFIX)
    return bool(room) and makes_numbers and _path(name).is_file()


@functools.cache
def _source_hash(name: str) -> str:
    digest = hashlib.sha256(ast.dump(_Bare().visit(_tree(name))).encode())
    return digest.hexdigest()[:DIGITS]


class _Bare(ast.NodeTransformer):
    """Drops what no computation reads: docstrings and descriptions."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return None
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.keywords = [word for word in node.keywords if word.arg != "description"]
        return self.generic_visit(node)


def _tree(name: str) -> ast.Module:
    return ast.parse(_path(name).read_text(encoding="utf-8"))


def _path(name: str) -> Path:
    package, *parts = name.split(".")
    folder = ASSETS_FOLDER if package == PACKAGE else ASSETS_FOLDER.parent / package
    return folder.joinpath(*parts).with_suffix(".py")
