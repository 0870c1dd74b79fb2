"""Which shard of a folder holds a document's rows: an index in SQLite beside the shards.

A shard's name says what is in it (capture.py), so an entry can never become wrong, only point at
a file that is not there. Entries are committed before their shard gets its name: killed at any
point, a shard that is there is listed. A listed shard that is not there (killed in between,
expired, deleted) simply does not count. Two processes may write at once: SQLite lets one wait.

The index is a help, not a record: without it (an older lake, or deleted) documents are captured
again, and shards found by name are entered. Shards themselves are shards.py.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from assets.activations.shard_groups import DocumentGroup
from assets.activations.shards import ShardError

INDEX_NAME = "captured_documents.sqlite"
LOCK_SECONDS = 120.0
QUERY_SIZE = 500
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS shards (id INTEGER PRIMARY KEY, path TEXT UNIQUE, scope TEXT)",
    "CREATE TABLE IF NOT EXISTS documents (hash BLOB, shard INTEGER, first_row INTEGER, "
    "PRIMARY KEY (hash, shard)) WITHOUT ROWID",
)


@dataclass(frozen=True)
class ShardContents:
    """What is entered of a shard: file name, scope, and its documents.

    The scope names all that determines rows beside the token ids: model, number type, site.
    """

    path: str
    scope: str
    group: DocumentGroup


class CapturedDocuments:
    """The index of one folder of shards. Every method raises ShardError when SQLite refuses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with self._explained():
            folder.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                folder / INDEX_NAME, timeout=LOCK_SECONDS, isolation_level=None
            )
            for statement in _SCHEMA:
                self._database.execute(statement)

    def add(self, shards: Sequence[ShardContents]) -> None:
        """Enters shards that are not entered yet, all in one transaction."""
        with self._explained():
            listed = {
                path
                for (path,) in self._select(
                    "SELECT path FROM shards WHERE path IN", [shard.path for shard in shards]
                )
            }
            if all(shard.path in listed for shard in shards):
                return
            with self._transaction():
                for shard in shards:
                    number = self._database.execute(
                        "INSERT INTO shards (path, scope) VALUES (?, ?) ON CONFLICT DO NOTHING "
                        "RETURNING id",
                        (shard.path, shard.scope),
                    ).fetchone()
                    if number is not None:  # else another process was faster
                        self._database.executemany(
                            "INSERT INTO documents VALUES (?, ?, ?)",
                            [
                                (key, *number, first_rows[0])
                                for key, first_rows in shard.group.first_rows.items()
                            ],
                        )

    def holders(self, hashes: Collection[bytes], scope: str) -> dict[str, dict[bytes, int]]:
        """{shard's file name: {document's hash: its first row there}} of the documents listed."""
        found: dict[str, dict[bytes, int]] = {}
        with self._explained():
            for path, key, first_row in self._select(
                "SELECT path, hash, first_row FROM documents JOIN shards ON shards.id = shard "
                "WHERE scope = ? AND hash IN",
                sorted(hashes),
                scope,
            ):
                found.setdefault(path, {})[key] = first_row
        return found

    def forget_missing(self) -> int:
        """Drops the entries of shards that are not there; returns of how many shards.

        For maintenance, after files were deleted. A shard that another process is writing at
        this moment may lose its entry, and is entered again when it is next found by name.
        """
        with self._explained(), self._transaction():
            listed = self._database.execute("SELECT id, path FROM shards").fetchall()
            gone = [(number,) for number, path in listed if not (self.folder / path).is_file()]
            # Documents are keyed by hash, so each shard would mean a scan of its own.
            self._database.execute("CREATE TEMP TABLE gone (id INTEGER PRIMARY KEY)")
            self._database.executemany("INSERT INTO gone VALUES (?)", gone)
            self._database.execute("DELETE FROM documents WHERE shard IN (SELECT id FROM gone)")
            self._database.execute("DELETE FROM shards WHERE id IN (SELECT id FROM gone)")
            self._database.execute("DROP TABLE gone")
        return len(gone)

    def close(self) -> None:
        self._database.close()

    def _select(self, sql: str, values: Sequence[object], *before: object) -> Iterator[tuple]:
        """Rows of a query that ends in IN, asked for a few hundred values at a time."""
        for start in range(0, len(values), QUERY_SIZE):
            part = values[start : start + QUERY_SIZE]
            marks = ", ".join("?" * len(part))
            yield from self._database.execute(f"{sql} ({marks})", (*before, *part)).fetchall()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise ShardError(
                f"the index of captured documents {self.folder / INDEX_NAME} failed: {error}; "
                "make room on the disk where it is full; a damaged index may be deleted, then "
                "documents are captured again where their shard has changed"
            ) from error
