"""Massive tokens and statistics by position, against plain loops over known matrices."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from assets.activations.neuron_statistics import neuron_statistics
from assets.activations.shards import ActivationReader, ShardRecord, write_shard
from assets.activations.statistics import (
    hoyer_sparsity,
    massive_rows,
    neurons_for_half_energy,
    row_statistics,
    stats_frame,
    token_frame,
    token_positions,
)
from assets.activations.tables import ACTIVATION_STATS, TABLES, TOKENS
from assets.activations.tokenization import TokenizedDocument

DOCUMENTS = [
    TokenizedDocument("a", (5, 6, 7), 0),
    TokenizedDocument("b", tuple(range(5, 17)), 0),
    TokenizedDocument("c", (5,), 0),
]
PARTITION = {"site": "study:m@L1.mlp_hidden"}


def reader(folder: Path, rows: torch.Tensor) -> ActivationReader:
    made, first = [], 0
    for number, part in enumerate(rows.split(5)):
        file = write_shard(folder / f"{number}.parquet", part)
        made.append(ShardRecord(**vars(file), shard=number, first_row=first, n_dropped_special=0))
        first += len(part)
    return ActivationReader(made, folder)


def sink_rows() -> torch.Tensor:
    """First tokens 50 times longer than the rest, which are ordinary."""
    rows = torch.randn(16, 8, generator=torch.Generator().manual_seed(0)).half().float()
    rows[[0, 3, 15]] *= 50
    return rows.half().float()


def test_first_token_sinks_are_flagged_and_nothing_else() -> None:
    flags = massive_rows(sink_rows().norm(dim=1), 5.0)
    assert flags.nonzero().flatten().tolist() == [0, 3, 15]
    ordinary = torch.randn(500, 64, generator=torch.Generator().manual_seed(1)).norm(dim=1)
    assert not massive_rows(ordinary, 5.0).any()


def test_the_flag_does_not_depend_on_the_matrix_scale() -> None:
    norms = sink_rows().norm(dim=1)
    assert torch.equal(massive_rows(norms, 5.0), massive_rows(norms * 1e-3, 5.0))


def test_token_rows_follow_the_activation_rows() -> None:
    norms = sink_rows().norm(dim=1)
    flags = massive_rows(norms, 5.0)
    frame = token_frame(DOCUMENTS, {i: f" t{i}" for i in range(20)}, norms, flags)
    frame = TOKENS.conform(frame, PARTITION)
    assert frame["document_id"].to_list() == ["a"] * 3 + ["b"] * 12 + ["c"]
    assert frame["position"].to_list() == [0, 1, 2, *range(12), 0]
    assert frame["token"].to_list()[:4] == [" t5", " t6", " t7", " t5"]
    assert frame.filter("is_massive")["row"].to_list() == [0, 3, 15]
    with pytest.raises(ValueError, match="16 tokens, the activations 15 rows"):
        token_frame(DOCUMENTS, {}, norms[:15], flags[:15])


def test_positions_count_the_dropped_prefix() -> None:
    documents = [TokenizedDocument("a", (1, 5, 6), 1), TokenizedDocument("b", (1,), 1)]
    assert token_positions(documents).tolist() == [1, 2]
    frame = token_frame(documents, {5: "x", 6: "y"}, torch.ones(2), torch.zeros(2).bool())
    assert frame["position"].to_list() == [1, 2]


def test_stats_equal_plain_loops_over_the_matrix(tmp_path: Path) -> None:
    rows = sink_rows()
    rows[4, :4] = 0
    rows[5, 0] = 60000
    flags = massive_rows(rows.norm(dim=1), 5.0)
    statistics = row_statistics(reader(tmp_path, rows))
    positions = token_positions(DOCUMENTS)
    neurons = neuron_statistics(reader(tmp_path, rows), ~flags)
    frame = ACTIVATION_STATS.conform(stats_frame(statistics, positions, flags, neurons), PARTITION)
    assert frame["share_neurons_lazy"].to_list() == [neurons.share_lazy, None, None, None, None]
    assert frame["share_neurons_dead"].to_list() == [neurons.share_dead, None, None, None, None]
    assert frame["position_group"].to_list() == ["all", "0", "1", "2-7", "8+"]
    members = {"all": range(100), "0": [0], "1": [1], "2-7": range(2, 8), "8+": range(8, 100)}
    for found in frame.iter_rows(named=True):
        chosen = [
            i
            for i, position in enumerate(positions.tolist())
            if position in members[found["position_group"]]
        ]
        norms = [sum(float(x) ** 2 for x in rows[i]) ** 0.5 for i in chosen]
        values = [(float(x), max(abs(float(y)) for y in rows[i])) for i in chosen for x in rows[i]]
        energy = sum(n**2 for n in norms)
        massive = sum(n**2 for i, n in zip(chosen, norms, strict=True) if flags[i])
        assert found["n_tokens"] == len(chosen)
        assert found["norm_mean"] == pytest.approx(sum(norms) / len(norms), rel=1e-5)
        assert found["norm_max"] == pytest.approx(max(norms), rel=1e-5)
        assert found["n_massive"] == sum(bool(flags[i]) for i in chosen)
        assert found["share_energy_massive"] == pytest.approx(massive / energy, rel=1e-5)
        assert found["share_positive"] == pytest.approx(sum(x > 0 for x, _ in values) / len(values))
        assert found["share_near_zero"] == pytest.approx(
            sum(abs(x) <= 1e-3 * m for x, m in values) / len(values)
        )
        hoyer = [
            (8**0.5 - sum(abs(float(x)) for x in rows[i]) / n) / (8**0.5 - 1)
            for i, n in zip(chosen, norms, strict=True)
        ]
        assert found["hoyer_sparsity"] == pytest.approx(sum(hoyer) / len(hoyer), rel=1e-4)
        half = 0
        for i, n in zip(chosen, norms, strict=True):
            squares = sorted((float(x) ** 2 for x in rows[i]), reverse=True)
            half += next(k for k in range(1, 9) if sum(squares[:k]) >= n**2 / 2)
        assert found["neurons_for_half_energy"] == pytest.approx(half / len(chosen))


def test_the_measures_of_a_rows_sparsity_run_from_equal_values_to_a_single_one() -> None:
    rows = torch.tensor([[2.0, -2, 2, -2], [0, 0, -7, 0], [0, 0, 0, 0], [3, 1, 0, 0]])
    hoyer = hoyer_sparsity(rows)
    assert hoyer[:2].tolist() == pytest.approx([0, 1]) and hoyer[2].isnan()
    assert 0 < hoyer[3] < 1
    half = neurons_for_half_energy(rows)
    assert half[[0, 1, 3]].tolist() == [2, 1, 1] and half[2].isnan()


def test_groups_without_tokens_have_no_row(tmp_path: Path) -> None:
    statistics = row_statistics(reader(tmp_path, torch.zeros(2, 4)))
    frame = stats_frame(statistics, torch.tensor([1, 2]), torch.zeros(2).bool())
    frame = ACTIVATION_STATS.conform(frame, PARTITION)
    assert frame["position_group"].to_list() == ["all", "1", "2-7"]
    assert frame["share_energy_massive"].null_count() == 3
    assert frame["share_near_zero"].to_list() == [1.0] * 3
    assert frame["hoyer_sparsity"].null_count() == 3
    assert frame["neurons_for_half_energy"].null_count() == 3


def test_tables_are_declared_for_this_stage() -> None:
    assert {table.stage for table in TABLES} == {"activations"}
    assert [table.name for table in TABLES] == [
        "tokens",
        "activation_shards",
        "activation_stats",
        "neuron_stats",
    ]
