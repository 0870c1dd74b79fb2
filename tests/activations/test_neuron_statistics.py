"""Neuron statistics against plain loops, planted lazy and dead neurons, massive tokens left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kurtosis

from assets.activations.neuron_statistics import (
    ACTIVE_SHARE,
    LAZY_SHARE,
    neuron_frame,
    neuron_statistics,
)
from assets.activations.shards import ActivationReader, ShardRecord, write_shard
from assets.activations.tables import NEURON_STATS

PARTITION = {"site": "study:m@L1.mlp_hidden"}


def reader(folder: Path, rows: torch.Tensor, shard_rows: int = 37) -> ActivationReader:
    made, first = [], 0
    for number, part in enumerate(rows.split(shard_rows)):
        file = write_shard(folder / f"{shard_rows}-{number}.parquet", part)
        made.append(ShardRecord(**vars(file), shard=number, first_row=first, n_dropped_special=0))
        first += len(part)
    return ActivationReader(made, folder)


def planted_rows() -> torch.Tensor:
    """200 tokens: neuron 0 dead, neuron 1 active on four tokens, neuron 2 constant; 3 to 7 busy."""
    generator = torch.Generator().manual_seed(0)
    rows = 1 + torch.rand(200, 8, generator=generator)
    rows[:, 4] *= -1
    rows[:, 0] = 0.001
    rows[:, 1] = 0
    rows[[3, 50, 99, 180], 1] = 1.5
    rows[:, 2] = 1.25
    return rows.half().float()


def test_each_column_equals_a_plain_loop_over_the_kept_rows(tmp_path: Path) -> None:
    rows = planted_rows()
    is_kept = torch.rand(200, generator=torch.Generator().manual_seed(1)) < 0.7
    frame = neuron_frame(neuron_statistics(reader(tmp_path, rows), is_kept))
    frame = NEURON_STATS.conform(frame, PARTITION)
    kept = [[float(x) for x in row] for row, keep in zip(rows, is_kept, strict=True) if keep]
    energy = sum(x * x for row in kept for x in row)
    for found in frame.iter_rows(named=True):
        own = [row[found["neuron"]] for row in kept]
        active = [
            abs(x) > ACTIVE_SHARE * max(map(abs, row)) for x, row in zip(own, kept, strict=True)
        ]
        assert found["n_tokens"] == len(kept)
        assert found["share_active"] == pytest.approx(sum(active) / len(kept))
        assert found["share_positive"] == pytest.approx(sum(x > 0 for x in own) / len(kept))
        assert found["mean_abs"] == pytest.approx(sum(map(abs, own)) / len(kept))
        assert found["max_abs"] == max(map(abs, own))
        assert found["energy_share"] == pytest.approx(sum(x * x for x in own) / energy)
        if np.ptp(own):
            assert found["kurtosis"] == pytest.approx(kurtosis(own, fisher=False), rel=1e-6)
        else:
            assert found["kurtosis"] is None
    assert frame["energy_share"].sum() == pytest.approx(1)


def test_planted_lazy_and_dead_neurons_are_flagged_and_no_other(tmp_path: Path) -> None:
    neurons = neuron_statistics(reader(tmp_path, planted_rows()), torch.ones(200).bool())
    frame = neuron_frame(neurons)
    assert frame.filter("is_dead")["neuron"].to_list() == [0]
    assert frame.filter("is_lazy")["neuron"].to_list() == [0, 1]
    assert LAZY_SHARE > 4 / 200
    assert (neurons.share_dead, neurons.share_lazy) == (1 / 8, 2 / 8)


def test_neither_shards_nor_scale_change_who_is_active(tmp_path: Path) -> None:
    rows, everyone = planted_rows(), torch.ones(200).bool()
    one = neuron_statistics(reader(tmp_path, rows, 200), everyone)
    many = neuron_statistics(reader(tmp_path, rows, 13), everyone)
    (tmp_path / "scaled").mkdir()
    scaled = neuron_statistics(reader(tmp_path / "scaled", 64 * rows), everyone)
    assert torch.equal(one.share_active, many.share_active)
    assert torch.allclose(one.kurtosis, many.kurtosis, equal_nan=True)
    assert torch.equal(one.share_active, scaled.share_active)
    assert torch.allclose(one.energy_share, scaled.energy_share)


def test_a_massive_token_left_out_changes_nothing(tmp_path: Path) -> None:
    rows = planted_rows()
    sink = torch.zeros(1, 8)
    sink[0, 0] = 5000
    is_kept = torch.tensor([True] * 100 + [False] + [True] * 100)
    (tmp_path / "sink").mkdir()
    with_sink = reader(tmp_path / "sink", torch.cat([rows[:100], sink, rows[100:]]))
    plain = neuron_frame(neuron_statistics(reader(tmp_path, rows), torch.ones(200).bool()))
    assert neuron_frame(neuron_statistics(with_sink, is_kept)).equals(plain)
    counted = neuron_statistics(with_sink, torch.ones(201).bool())
    assert counted.energy_share[0] > 0.9, "the control: counted, it carries nearly all"


def test_zero_rows_and_no_rows(tmp_path: Path) -> None:
    frame = neuron_frame(neuron_statistics(reader(tmp_path, torch.zeros(3, 4)), torch.ones(3) > 0))
    assert frame["is_dead"].all() and frame["energy_share"].to_list() == [0.0] * 4
    assert frame["kurtosis"].null_count() == 4
    with pytest.raises(ValueError, match="0 of 3 rows kept"):
        neuron_statistics(reader(tmp_path, torch.zeros(3, 4)), torch.zeros(3) > 0)
    with pytest.raises(ValueError, match="the reader has 3"):
        neuron_statistics(reader(tmp_path, torch.zeros(3, 4)), torch.ones(2) > 0)
