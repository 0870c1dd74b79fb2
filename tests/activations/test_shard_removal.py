"""A shard goes whole or stays whole, and one that a capture took over meanwhile stays."""

import os
import time
from pathlib import Path

import pytest
import torch

from assets.activations import shard_removal
from assets.activations.shard_removal import mend_removal, remove_shard
from assets.activations.shards import complete_shard, read_shard, write_shard

LONG_AGO = time.time() - 1e6
BEFORE = time.time() - 1e5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "L1.mlp_hidden-0a.parquet"
    write_shard(path, torch.ones(3, 2))
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


def names(path: Path) -> set[str]:
    return {p.name for p in path.parent.iterdir()} - {"publish.lock"}


def test_an_unused_shard_goes_with_its_sidecar(path: Path) -> None:
    n_bytes = path.stat().st_size
    assert remove_shard(path, BEFORE) == n_bytes
    assert names(path) == set()
    assert complete_shard(path) is None
    assert remove_shard(path, BEFORE) is None


def test_taking_a_shard_over_protects_it(path: Path) -> None:
    found = complete_shard(path)
    assert found is not None
    assert remove_shard(path, BEFORE) is None
    assert complete_shard(path) == found and len(read_shard(path, found.sha256)) == 3


def test_a_touch_between_the_two_steps_of_a_removal_is_seen(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, found = os.replace, []

    def aside_then_a_capture_comes(source: Path, target: Path) -> None:
        if not found:
            found.append(complete_shard(path))  # touches, then still reads the sidecar
        replace(source, target)

    monkeypatch.setattr(shard_removal.os, "replace", aside_then_a_capture_comes)
    assert remove_shard(path, BEFORE) is None
    assert found[0] is not None and complete_shard(path) == found[0]


def test_a_capture_that_comes_after_the_sidecar_went_finds_no_shard(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat, found = Path.stat, []

    def capture_comes_first(self: Path, **options: bool) -> os.stat_result:
        if self == path and not found:
            found.append("asked")
            found.append(complete_shard(path))
        return stat(self, **options)

    monkeypatch.setattr(Path, "stat", capture_comes_first)
    remove_shard(path, BEFORE)
    assert found == ["asked", None]


def test_a_removal_killed_half_way_is_mended(path: Path) -> None:
    sidecar = path.with_suffix(".json")
    found = complete_shard(path)
    aside = sidecar.with_name(sidecar.name + ".removing")
    os.replace(sidecar, aside)
    assert complete_shard(path) is None
    mend_removal(aside)
    assert complete_shard(path) == found
    mend_removal(aside)
    assert names(path) == {path.name, sidecar.name}
