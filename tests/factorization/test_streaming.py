"""Fits that stream over shards against the same fits in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from factorization.conftest import settings_for

from assets.activations.shards import ActivationReader, ShardRecord, write_shard
from assets.factorization.config import FitConfig
from assets.factorization.factorization import Factorization
from assets.factorization.fit_inputs import FitInputs
from assets.factorization.fit_source import MatrixSource, ShardSource, device_of, source_of
from assets.factorization.initialization import initial_dictionary
from assets.factorization.inputs import FactorizationError
from assets.factorization.projection import KeptFit
from assets.factorization.scaling import measure_scales
from assets.factorization.scratch_folder import GUARD
from assets.factorization.streaming import needs_streaming
from assets.factorization.token_blocks import (
    MatrixBlocks,
    ScratchStore,
    StreamedBlocks,
    sampled_rows,
)

SHARDS = (210, 1, 250, 139)


def written(folder: Path, activations: torch.Tensor, sizes=SHARDS) -> ActivationReader:
    """The activations in float16 shards of the sizes given."""
    records, first = [], 0
    for number, size in enumerate(sizes):
        file = write_shard(folder / f"{number}.parquet", activations[first : first + size])
        records.append(
            ShardRecord(**vars(file), shard=number, first_row=first, n_dropped_special=0)
        )
        first += size
    return ActivationReader(records, folder)


def inputs_for(is_massive: torch.Tensor) -> FitInputs:
    n = len(is_massive)
    return FitInputs(
        shards=["a"],
        documents=["d"] * n,
        is_massive=is_massive,
        concepts=[None] * n,
        is_held_out=torch.zeros(n, dtype=torch.bool),
    )


def dense(fitted: Factorization) -> torch.Tensor:
    values = fitted.coefficients
    return values if isinstance(values, torch.Tensor) else torch.from_numpy(values.toarray())


@pytest.fixture(autouse=True)
def small_row_groups(monkeypatch):
    """Shards of several parts, though they are small."""
    monkeypatch.setattr("assets.activations.shards.ROW_GROUP_SIZE", 100)


@pytest.mark.parametrize("method", ["snmf", "random", "permuted", "covariance"])
def test_a_streamed_fit_is_the_fit_in_memory(planted, tmp_path, method):
    data = planted(noise=0.1)
    data.activations[5] *= 40  # one massive token, left out of both
    reader = written(tmp_path, data.activations)
    is_massive = torch.zeros(600, dtype=torch.bool)
    is_massive[[5, 210]] = True  # 210: a part of one token, of which none is left
    # A tol at float32's rounding would let either stop an iteration sooner.
    values = {"rank": 10, "keep_fraction": 0.05, "max_iter": 60, "tol": 1e-5}
    fit = FitConfig(method=method, **settings_for(method, **values))
    inputs = inputs_for(is_massive)
    in_memory, scale = MatrixSource(reader.load(), inputs).fit(fit, None, lambda *_: None)
    streamed, streamed_scale = ShardSource(reader, inputs, tmp_path).fit(fit, None, lambda *_: None)
    assert streamed_scale == pytest.approx(scale)
    torch.testing.assert_close(streamed.dictionary, in_memory.dictionary, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        dense(streamed) / scale, dense(in_memory) / scale, rtol=1e-4, atol=1e-4
    )
    assert streamed.objective_trace == pytest.approx(in_memory.objective_trace, rel=1e-4)
    for name in ("explained_variance", "explained_variance_centered", "l0"):
        assert getattr(streamed, name) == pytest.approx(getattr(in_memory, name), abs=1e-3)
    for name in ("n_tokens", "n_tokens_fit", "n_massive_excluded", "n_dead_features", "width"):
        assert getattr(streamed, name) == getattr(in_memory, name)
    assert streamed.explained_variance_all_tokens == pytest.approx(
        in_memory.explained_variance_all_tokens, abs=1e-3
    )
    assert not list(tmp_path.glob("coefficients-*")), "scratch files are left"


def test_the_parts_of_shards_are_their_rows(planted, tmp_path):
    reader = written(tmp_path, planted().activations)
    parts = reader.parts()
    assert [part.n_rows for part in parts] == [100, 100, 10, 1, 100, 100, 50, 100, 39]
    rows = torch.cat([reader.read(part.shard, part.part) for part in parts])
    assert torch.equal(rows.float(), reader.load())
    assert [part.first_row for part in parts] == [0, 100, 200, 210, 211, 311, 411, 461, 561]


def test_a_streamed_projection_is_the_projection_in_memory(planted, tmp_path):
    data = planted()
    reader = written(tmp_path, data.activations)
    inputs = inputs_for(torch.zeros(600, dtype=torch.bool))
    fit = FitConfig(rank=10, keep_fraction=0.05)
    in_memory, streamed = (
        source.project(fit, KeptFit(data.dictionary, 2.5, n_tokens_fit=123))
        for source in (MatrixSource(reader.load(), inputs), ShardSource(reader, inputs))
    )
    torch.testing.assert_close(dense(streamed), dense(in_memory), rtol=1e-4, atol=1e-4)
    assert streamed.n_tokens_fit == in_memory.n_tokens_fit == 123
    assert streamed.explained_variance == pytest.approx(in_memory.explained_variance, abs=1e-5)


def test_a_warm_start_streams_too(planted, tmp_path):
    data = planted()
    reader = written(tmp_path, data.activations)
    inputs = inputs_for(torch.zeros(600, dtype=torch.bool))
    fit = FitConfig(rank=10, keep_fraction=0.05, tol=1e-5)
    source = ShardSource(reader, inputs, tmp_path)
    cold, _ = source.fit(fit, None, lambda *_: None)
    warm, _ = source.fit(fit, cold.dictionary, lambda *_: None)
    assert warm.n_iter < cold.n_iter
    assert warm.objective_trace[-1] <= cold.objective_trace[-1] * (1 + 1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_number_types_are_widened_on_the_way(dtype):
    rows = torch.randn(30, 8).to(dtype)
    blocks = StreamedBlocks(lambda block: rows[10 * block : 10 * block + 10], [10, 10, 10], 8)
    scales = measure_scales(blocks, 0.25)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    expected = rows.to(wide)
    assert scales.mean_row_norm == pytest.approx(float(expected.norm(dim=1).mean()), rel=1e-5)
    neurons = blocks.neurons(1, scales.divisor)
    assert neurons.dtype == wide
    torch.testing.assert_close(neurons, (expected[10:20] / scales.divisor.neurons).t())


@pytest.mark.parametrize("power", [0.3, 1.0])
def test_row_scaling_keeps_the_mean_norm_and_lifts_quiet_tokens(power):
    rows = torch.randn(300, 6) * torch.logspace(-2, 2, 300)[:, None]
    rows[7] = 0
    scales = measure_scales(MatrixBlocks(rows), 0.0, power)
    scaled = MatrixBlocks(rows).neurons(0, scales.divisor).t()
    norms, before = scaled.norm(dim=1), rows.norm(dim=1)
    assert float(norms.mean()) == pytest.approx(1.0, rel=1e-4)
    assert norms[7] == 0
    alive = before > 0
    torch.testing.assert_close(
        (norms / norms[0])[alive], (before / before[0])[alive] ** (1 - power), rtol=1e-3, atol=1e-4
    )
    # Directions stay; t is what tokens are divided by beside c.
    torch.testing.assert_close(
        scaled[alive] * scales.mean_row_norm * scales.of_rows(rows[alive])[:, None],
        rows[alive],
        rtol=1e-3,
        atol=1e-4,
    )


def test_row_scaling_alone_changes_no_energy_between_equal_tokens():
    rows = torch.nn.functional.normalize(torch.randn(50, 8), dim=1) * 3.0
    plain, scaled = (measure_scales(MatrixBlocks(rows), 0.4, q).divisor for q in (0.0, 0.7))
    blocks = MatrixBlocks(rows)
    torch.testing.assert_close(blocks.neurons(0, plain), MatrixBlocks(rows).neurons(0, scaled))


def test_column_scaling_keeps_the_energy_and_lifts_quiet_neurons():
    rows = torch.randn(200, 5) * torch.tensor([10.0, 1.0, 1.0, 0.1, 0.0])
    none, some, equal = (measure_scales(MatrixBlocks(rows), p).columns for p in (0.0, 0.25, 1.0))
    torch.testing.assert_close(none, torch.ones(5))
    for columns in (some, equal):
        assert float((rows / columns).square().sum()) == pytest.approx(
            float(rows.square().sum()), rel=1e-4
        )
        assert torch.isfinite(rows / columns).all()
    loudness = (rows / equal).square().mean(dim=0).sqrt()
    torch.testing.assert_close(loudness[:4], loudness[:1].expand(4), rtol=1e-4, atol=1e-4)
    assert some[0] > some[1] > some[3]


def test_a_sample_holds_each_token_once_in_token_order():
    rows = torch.arange(40.0)[:, None].repeat(1, 3)
    blocks = StreamedBlocks(lambda block: rows[10 * block : 10 * block + 10], [10] * 4, 3)
    sample = sampled_rows(blocks, 17, torch.Generator().manual_seed(0))[:, 0]
    assert len(sample.unique()) == 17
    assert torch.equal(sample, sample.sort().values)
    assert torch.equal(sampled_rows(blocks, 99, torch.Generator()), rows)


def test_a_start_does_not_depend_on_how_tokens_are_cut(planted):
    rows = planted().activations
    whole = MatrixBlocks(rows)
    cut = StreamedBlocks(
        lambda b: rows[(0, 100, 350)[b] : (100, 350, 600)[b]], [100, 250, 250], 120
    )
    for init in ("kmeans", "random", "svd"):
        starts = [
            initial_dictionary(b, 1.0, 10, 6, init, torch.Generator().manual_seed(1))
            for b in (whole, cut)
        ]
        torch.testing.assert_close(*starts)


def test_a_broken_row_is_named_by_its_place_in_the_site(tmp_path):
    rows = torch.randn(40, 8)
    rows[33, 2] = float("nan")
    blocks = StreamedBlocks(lambda block: rows[20 * block : 20 * block + 20], [20, 20], 8)
    with pytest.raises(FactorizationError, match=r"rows 33"):
        measure_scales(blocks, 0.0)


def test_scratch_files_go_even_after_an_error(tmp_path):
    blocks = MatrixBlocks(torch.randn(20, 4))
    with (
        pytest.raises(RuntimeError, match="in between"),
        ScratchStore(blocks, 3, torch.zeros(0), tmp_path) as store,
    ):
        assert torch.equal(store.load(0), torch.zeros(3, 20))
        store.save(0, torch.ones(3, 20))
        assert torch.equal(store.load(0), torch.ones(3, 20))
        raise RuntimeError("in between")
    assert [path.name for path in tmp_path.iterdir()] == [GUARD]


def test_fits_stream_where_memory_would_not_do(tmp_path):
    fit = FitConfig(rank=4, max_memory_gib=0)
    assert needs_streaming(fit, 100, 50)
    assert not needs_streaming(FitConfig(rank=4), 100, 50)
    assert needs_streaming(FitConfig(rank=4), 10_000_000, 14_336)
    reader = written(tmp_path, torch.randn(30, 12), sizes=(30,))
    inputs = inputs_for(torch.zeros(30, dtype=torch.bool))
    assert isinstance(source_of(reader, fit, inputs), ShardSource)
    assert isinstance(source_of(reader, FitConfig(rank=4), inputs), MatrixSource)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"method": "pca", "rank": 4}, "method 'pca'"),
        ({"rank": "auto"}, "rank 'auto'"),
        ({"rank": 4, "solver": "multiplicative"}, "solver 'multiplicative'"),
        ({"rank": 4, "stability_seeds": 2}, "stability_seeds 2"),
    ],
)
def test_what_cannot_stream_says_so(settings, named):
    fit = FitConfig(**settings, max_memory_gib=0.001)
    with pytest.raises(FactorizationError, match=f"{named}.*raise max_memory_gib"):
        needs_streaming(fit, 100_000, 1_000)
    assert not needs_streaming(fit, 10, 10)


def test_a_fit_runs_on_the_device_it_is_told(monkeypatch):
    assert device_of(FitConfig(rank=2, device="cpu")).type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of(FitConfig(rank=2)).type == "cuda"
    assert device_of(FitConfig(rank=2, device="cpu")).type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of(FitConfig(rank=2)).type == "cpu"
    with pytest.raises(FactorizationError, match="sees no GPU here"):
        device_of(FitConfig(rank=2, device="cuda"))
