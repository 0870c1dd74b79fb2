"""Capture to shards: right values in the right rows, resumed where it stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from assets.activations import capture
from assets.activations.capture import (
    CaptureError,
    CaptureProgress,
    CaptureSettings,
    capture_shards,
)
from assets.activations.hooks import record_sites, run_forward
from assets.activations.shard_groups import group_documents
from assets.activations.shards import ActivationReader, ShardError
from assets.activations.sites import ActivationSite, SiteError, locate_blocks
from assets.activations.tokenization import TokenizedDocument
from tests.activations.tiny_models import ARCHITECTURES, tiny_model

SITES = (ActivationSite(0), ActivationSite(1, "resid_post"))


def documents(n: int = 12, prefix: int = 1, seed: int = 0) -> list[TokenizedDocument]:
    """Documents of 1 to 20 random tokens behind `prefix` BOS tokens; one has none of its own."""
    rng = np.random.default_rng(seed)
    made = [
        TokenizedDocument(
            f"d{i}",
            (1,) * prefix + tuple(rng.integers(4, 64, rng.integers(1, 21)).tolist()),
            prefix,
        )
        for i in range(n)
    ]
    return [*made[: n // 2], TokenizedDocument("empty", (1,) * prefix, prefix), *made[n // 2 :]]


def settings(folder: Path, **changes: object) -> CaptureSettings:
    return CaptureSettings(
        **{"folder": folder, "model_revision": "r1", "batch_tokens": 50, "shard_tokens": 30}
        | changes
    )


def one_by_one(model: nn.Module, docs: list[TokenizedDocument], site: ActivationSite):
    rows: list[torch.Tensor] = []
    for document in (d for d in docs if d.n_rows):
        seen: list[torch.Tensor] = []
        with record_sites(model, [site], lambda _, x, seen=seen: seen.append(x.clone())):
            run_forward(model, {"input_ids": torch.tensor([document.token_ids])})
        rows.append(seen[0][0, document.n_special_prefix :])
    return torch.cat(rows)


class ForwardCounter:
    """Counts forward passes by their first block, and can fail at one."""

    def __init__(self, model: nn.Module, fail_at: int | None = None) -> None:
        self.n = 0
        self._fail_at = fail_at
        self._handle = locate_blocks(model)[0].register_forward_pre_hook(self._count)

    def _count(self, *_: object) -> None:
        self.n += 1
        if self.n == self._fail_at:
            self._handle.remove()
            raise KeyboardInterrupt("killed")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("prefix", [0, 1])
def test_batched_and_padded_equals_one_by_one(
    architecture: str, prefix: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = tiny_model(architecture)
    docs = documents(prefix=prefix)
    seen: dict[ActivationSite, list[torch.Tensor]] = {site: [] for site in SITES}
    write = capture.write_shard

    def keep_exact(path: Path, rows: torch.Tensor):  # before the shard rounds to float16
        site = ActivationSite.parse(path.name.rsplit("-", 1)[0])
        seen[site].append(rows.clone())
        return write(path, rows)

    monkeypatch.setattr(capture, "write_shard", keep_exact)
    result = capture_shards(model, docs, SITES, settings(tmp_path))
    for site in SITES:
        expected = one_by_one(model, docs, site)
        assert result.n_rows == len(expected)
        torch.testing.assert_close(torch.cat(seen[site]), expected, atol=1e-4, rtol=0)
        stored = ActivationReader(result.shards[site.key], tmp_path).load()
        torch.testing.assert_close(stored, expected, atol=1e-4, rtol=1e-3)


def test_rows_are_counted_and_dropped_tokens_recorded(tmp_path: Path) -> None:
    docs = documents(prefix=2)
    reports: list[CaptureProgress] = []
    result = capture_shards(tiny_model("llama"), docs, SITES, settings(tmp_path), reports.append)
    n_rows = sum(len(d.token_ids) - 2 for d in docs)
    assert result.n_rows == n_rows
    assert result.n_dropped_special == 2 * len(docs)
    for site in SITES:
        shards = result.shards[site.key]
        assert [s.shard for s in shards] == list(range(len(shards)))
        assert sum(s.n_rows for s in shards) == n_rows
        assert [s.first_row for s in shards] == np.cumsum(
            [0, *[s.n_rows for s in shards[:-1]]]
        ).tolist()
        # The document without a token of its own is never run.
        assert sum(s.n_dropped_special for s in shards) == 2 * (len(docs) - 1)
    assert len(shards) > 3
    assert [r.groups_done for r in reports] == list(range(1, len(shards) + 1))
    assert reports[-1].rows_done == reports[-1].rows_total == n_rows


def test_a_killed_capture_goes_on_where_it_stopped(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    docs = documents(20)
    whole = ForwardCounter(model)
    expected = capture_shards(model, docs, SITES, settings(tmp_path / "whole"))
    whole._handle.remove()
    assert whole.n == expected.n_forward_passes > 5

    # A group's passes all come before its shards; the first of the third group fails.
    groups = list(group_documents(docs, 30))
    part = [d for group in groups[:2] for d in group.documents]
    passes = capture_shards(model, part, SITES, settings(tmp_path / "part")).n_forward_passes
    killed = ForwardCounter(model, fail_at=passes + 1)
    with pytest.raises(KeyboardInterrupt):
        capture_shards(model, docs, SITES, settings(tmp_path / "killed"))
    assert killed.n == passes + 1
    assert len(list((tmp_path / "killed").glob("*.parquet"))) == 2 * len(SITES)

    resumed = ForwardCounter(model)
    result = capture_shards(model, docs, SITES, settings(tmp_path / "killed"))
    assert resumed.n == expected.n_forward_passes - passes == result.n_forward_passes
    assert result.n_shards_reused == 2 * len(SITES)
    assert result.n_documents_reused == len(part)
    assert result.shards == expected.shards
    for site in SITES:
        assert torch.equal(
            ActivationReader(result.shards[site.key], tmp_path / "killed").load(),
            ActivationReader(expected.shards[site.key], tmp_path / "whole").load(),
        )
    resumed.n = 0
    again = capture_shards(model, docs, SITES, settings(tmp_path / "killed"))
    assert resumed.n == 0
    assert again.shards == expected.shards


def test_a_shard_without_its_sidecar_or_cut_short_is_made_again(tmp_path: Path) -> None:
    model = tiny_model("llama")
    docs = documents()
    first = capture_shards(model, docs, SITES[:1], settings(tmp_path))
    paths = [tmp_path / shard.path for shard in first.shards[SITES[0].key]]
    paths[0].with_suffix(".json").unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:-10])
    paths[2].with_suffix(".json").write_text("{")
    second = capture_shards(model, docs, SITES[:1], settings(tmp_path))
    assert second.n_shards_written == 3
    assert second.shards == first.shards
    ActivationReader(second.shards[SITES[0].key], tmp_path).load()


def test_a_new_site_runs_only_as_far_as_it_needs(tmp_path: Path) -> None:
    model = tiny_model("llama")
    docs = documents(20)
    capture_shards(model, docs, [ActivationSite(2)], settings(tmp_path))
    ran: list[int] = []
    for i, block in enumerate(locate_blocks(model)):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    sites = [ActivationSite(2), ActivationSite(0)]
    both = capture_shards(model, docs, sites, settings(tmp_path))
    assert set(ran) == {0}
    assert both.n_shards_reused == both.n_shards_written


@pytest.mark.parametrize("changes", [{"model_revision": "r2"}, {"dtype": "bfloat16"}])
def test_another_model_or_number_type_shares_no_shard(tmp_path: Path, changes: dict) -> None:
    group = documents(4)
    name = capture.shard_name(group, SITES[0], settings(tmp_path))
    assert name == capture.shard_name(group, SITES[0], settings(tmp_path, batch_tokens=7))
    assert name != capture.shard_name(group, SITES[0], settings(tmp_path, **changes))
    assert name != capture.shard_name(group, SITES[1], settings(tmp_path))
    assert name != capture.shard_name(group[:-1], SITES[0], settings(tmp_path))
    # The same ids, but one of them is a prefix without a row.
    assert name != capture.shard_name(
        [replace(group[0], n_special_prefix=0), *group[1:]], SITES[0], settings(tmp_path)
    )


def test_what_the_model_cannot_take_is_refused_before_it_runs(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    counter = ForwardCounter(model)
    long = TokenizedDocument("too-long", tuple(range(4, 60)) * 2, 0)
    with pytest.raises(CaptureError, match=r"'too-long' has 112 tokens.*at most 64"):
        capture_shards(model, [*documents(), long], SITES, settings(tmp_path))
    with pytest.raises(CaptureError, match="no token"):
        capture_shards(model, [TokenizedDocument("e", (1,), 1)], SITES, settings(tmp_path))
    with pytest.raises(SiteError, match="out of range"):
        capture_shards(model, documents(), [ActivationSite(30)], settings(tmp_path))
    assert counter.n == 0
    assert not list(tmp_path.iterdir())


def test_activations_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.fill_(float("nan"))
    with pytest.raises(ShardError, match="NaN or infinity"):
        capture_shards(model, documents(), [ActivationSite(0, "mlp_out")], settings(tmp_path))
    assert not list(tmp_path.glob("*.parquet")) + list(tmp_path.glob("*.json"))
