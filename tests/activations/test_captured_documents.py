"""The index of captured documents: entries, several writers, files that went, damage."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from assets.activations.captured_documents import (
    INDEX_NAME,
    QUERY_SIZE,
    CapturedDocuments,
    ShardContents,
)
from assets.activations.shard_groups import DocumentGroup, document_hash
from assets.activations.shards import ShardError
from assets.activations.tokenization import TokenizedDocument


def shard(path: str, numbers: range | list[int], scope: str = "s") -> ShardContents:
    """A shard of documents of two rows each, one a number."""
    documents = tuple(TokenizedDocument(str(n), (n, 7), 0) for n in numbers)
    return ShardContents(
        path, scope, DocumentGroup(documents, tuple(map(document_hash, documents)))
    )


def hashes(numbers: range | list[int]) -> list[bytes]:
    return list(shard("", numbers).group.hashes)


def test_documents_are_found_in_every_shard_of_their_scope(tmp_path: Path) -> None:
    with closing(CapturedDocuments(tmp_path)) as index:
        index.add([shard("a", [1, 2, 3]), shard("b", [3, 2, 3]), shard("c", [2], "other")])
    with closing(CapturedDocuments(tmp_path)) as index:  # another process, later
        two, three, nine = hashes([2, 3, 9])
        assert index.holders([two, three, nine], "s") == {
            "a": {two: 2, three: 4},
            "b": {two: 2, three: 0},
        }
        assert index.holders([two], "other") == {"c": {two: 0}}
        assert index.holders([], "s") == index.holders([two], "none") == {}


def test_entering_twice_changes_nothing(tmp_path: Path) -> None:
    with closing(CapturedDocuments(tmp_path)) as index:
        index.add([shard("a", [1, 2])])
        before = (tmp_path / INDEX_NAME).read_bytes()
        index.add([shard("a", [1, 2])])
        assert (tmp_path / INDEX_NAME).read_bytes() == before
        index.add([shard("a", [1, 2]), shard("b", [2])])
        assert index.holders(hashes([2]), "s").keys() == {"a", "b"}


def test_more_documents_than_one_query_takes(tmp_path: Path) -> None:
    numbers = range(2 * QUERY_SIZE + 3)
    with closing(CapturedDocuments(tmp_path)) as index:
        index.add([shard("a", numbers)])
        found = index.holders(hashes(numbers), "s")
    assert found == {"a": {key: 2 * n for n, key in enumerate(hashes(numbers))}}


def test_several_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    """SQLite locks by connection, so threads with one each meet as processes do."""

    def write(writer: int) -> None:
        with closing(CapturedDocuments(tmp_path)) as index:
            for number in range(20):
                own = shard(f"{writer}-{number}", [writer, 100 + number])
                index.add([own, shard(f"shared-{number}", [number])])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    with closing(CapturedDocuments(tmp_path)) as index:
        for number in range(20):
            assert index.holders(hashes([100 + number]), "s").keys() == {
                f"{writer}-{number}" for writer in range(4)
            }
            assert f"shared-{number}" in index.holders(hashes([number]), "s")


def test_shards_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    before = (tmp_path / "there").stat().st_mtime_ns
    with closing(CapturedDocuments(tmp_path)) as index:
        index.add([shard("there", [1, 2]), shard("gone", [2, 3]), shard("too", [3])])
        assert index.forget_missing() == 2
        assert index.forget_missing() == 0
        assert index.holders(hashes([1, 2, 3]), "s").keys() == {"there"}
        index.add([shard("gone", [2, 3])])  # written again
        assert index.holders(hashes([3]), "s").keys() == {"gone"}
    # A touch would tell maintenance that the shard is in use.
    assert (tmp_path / "there").stat().st_mtime_ns == before


def test_an_interrupted_entry_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half = shard("half", [1, 2])
    monkeypatch.setitem(half.group.first_rows, b"x", [])  # fails after the shard was entered
    with closing(CapturedDocuments(tmp_path)) as index:
        with pytest.raises(IndexError):
            index.add([half])
        assert index.holders(hashes([1, 2]), "s") == {}
        index.add([shard("half", [1, 2])])
        assert index.holders(hashes([1]), "s").keys() == {"half"}


def test_a_damaged_index_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / INDEX_NAME).write_text("no database" * 100)
    with pytest.raises(ShardError, match=rf"{INDEX_NAME} failed.*may be deleted"):
        CapturedDocuments(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ShardError, match="failed"):
        CapturedDocuments(tmp_path / "file")
