"""Captures that were killed, and shards or an index that went: what is whole is used, no more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from assets.activations import capture, shards
from assets.activations.capture import capture_shards
from assets.activations.captured_documents import INDEX_NAME, CapturedDocuments
from tests.activations.changing_corpus import (
    FIRST,
    SITES,
    assert_same_capture,
    corpus,
    documents_run,
    settings,
)
from tests.activations.tiny_models import tiny_model


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return tiny_model("llama")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    return documents_run(monkeypatch)


def test_a_shard_that_is_gone_or_damaged_does_not_count(
    model: nn.Module, ran: list[tuple[int, ...]], tmp_path: Path
) -> None:
    """Small shards, then one large one put together from those that are still good."""
    first = capture_shards(model, corpus(range(60)), [FIRST], settings(tmp_path))
    files = first.shards[FIRST.key]
    assert len(files) > 5
    gone, without_sidecar, damaged = (tmp_path / file.path for file in files[1:4])
    gone.unlink()
    without_sidecar.with_suffix(".json").unlink()
    flipped = bytearray(damaged.read_bytes())
    flipped[100] ^= 1
    damaged.write_bytes(flipped)
    begin, end = files[1].first_row, files[4].first_row
    lost, row = [], 0
    for document in corpus(range(60)):
        if begin <= row < end:
            lost.append(document.token_ids)
        row += document.n_rows
    ran.clear()
    large = settings(tmp_path, shard_tokens=2000)
    found = capture_shards(model, corpus(range(60)), [FIRST], large)
    assert sorted(ran) == sorted(lost)
    scratch = settings(tmp_path / "scratch", shard_tokens=2000)
    expected = capture_shards(model, corpus(range(60)), [FIRST], scratch)
    assert_same_capture(found, tmp_path, expected, tmp_path / "scratch")


def test_shards_without_an_index_are_used_by_name_and_entered(
    model: nn.Module, tmp_path: Path
) -> None:
    """As in a lake of an earlier version, or after the index was deleted."""
    docs = corpus(range(40))
    capture_shards(model, docs, SITES, settings(tmp_path))
    (tmp_path / INDEX_NAME).unlink()
    unknown = capture_shards(model, corpus(range(39, -1, -1)), SITES, settings(tmp_path))
    assert unknown.n_documents_run == 40
    (tmp_path / INDEX_NAME).unlink()
    assert capture_shards(model, docs, SITES, settings(tmp_path)).n_documents_run == 0
    known = capture_shards(model, [*docs[5:], *corpus([77])], SITES, settings(tmp_path))
    assert known.n_documents_run == 1


@pytest.mark.parametrize("at", range(12))
def test_killed_at_any_step_of_publishing_nothing_finished_is_run_again(
    model: nn.Module,
    ran: list[tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    at: int,
) -> None:
    """Steps: index entered, then shard and sidecar renamed, for each of two sites and groups."""
    steps = 0

    def stopping(step: Callable):
        def run(*args: object, **kwargs: object):
            nonlocal steps
            steps += 1
            if steps == at + 1:
                raise KeyboardInterrupt("killed")
            return step(*args, **kwargs)

        return run

    docs = corpus(range(40))
    with monkeypatch.context() as patch:
        patch.setattr(CapturedDocuments, "add", stopping(CapturedDocuments.add))
        patch.setattr(shards, "_publish", stopping(shards._publish))
        with pytest.raises(KeyboardInterrupt):
            capture_shards(model, docs, SITES, settings(tmp_path))
    whole = [path for path in tmp_path.glob("*.parquet") if shards.complete_shard(path)]
    assert len(whole) == 2 * (at // 5) + max(0, at % 5 - 1) // 2
    n_groups_done = min(sum(path.name.startswith(site.key) for path in whole) for site in SITES)
    ran.clear()
    moved = [*docs[::-1], *corpus([99])]
    found = capture_shards(model, moved, SITES, settings(tmp_path))
    groups = list(capture.group_documents(docs, 60))
    done = {d.token_ids for group in groups[:n_groups_done] for d in group.documents}
    assert sorted(ran) == sorted({d.token_ids for d in moved} - done)
    expected = capture_shards(model, moved, SITES, settings(tmp_path / "scratch"))
    assert_same_capture(found, tmp_path, expected, tmp_path / "scratch")


def test_after_a_real_kill_the_capture_goes_on(
    model: nn.Module, ran: list[tuple[int, ...]], tmp_path: Path
) -> None:
    program = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from assets.activations import shards
        from assets.activations.capture import capture_shards
        from tests.activations import changing_corpus as t
        from tests.activations.tiny_models import tiny_model
        publish, calls = shards._publish, []
        def dying(*args):
            calls.append(args)
            if len(calls) == 8:  # the sidecar of the second group's second site
                os.kill(os.getpid(), signal.SIGKILL)
            publish(*args)
        shards._publish = dying
        model, folder = tiny_model("llama"), Path(sys.argv[1])
        capture_shards(model, t.corpus(range(40)), t.SITES, t.settings(folder))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        check=False,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    docs = corpus(range(40))
    groups = list(capture.group_documents(docs, 60))
    found = capture_shards(model, docs, SITES, settings(tmp_path))
    assert found.n_shards_reused == 3
    assert ran == [d.token_ids for group in groups[1:] for d in group.documents]
    expected = capture_shards(model, docs, SITES, settings(tmp_path / "scratch"))
    assert found.shards == expected.shards
