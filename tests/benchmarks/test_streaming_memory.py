"""Peak memory of a streamed fit, against one shard and the factors, and against a fit in memory.

Each fit runs in a process of its own, whose peak resident memory before the fit (Python, torch) is
taken off. The factors counted are the dictionary, the gradient sums and the coefficients above
zero; the coefficients between passes wait on disk.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from assets.activations.shards import ShardRecord, write_shard

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(3600)]
SHARD_ROWS, N_SHARDS, WIDTH, RANK = 8_192, 12, 2_048, 128
PROGRAM = """
import json, resource, sys
from pathlib import Path
import torch
from assets.activations.shards import ActivationReader, ShardRecord
from assets.factorization.config import FitConfig
from assets.factorization.fit_inputs import FitInputs
from assets.factorization.fit_source import source_of

folder, limit = Path(sys.argv[1]), float(sys.argv[2])
records = [ShardRecord(**record) for record in json.loads((folder / "shards.json").read_text())]
reader = ActivationReader(records, folder)
n = reader.n_rows
inputs = FitInputs(
    shards=[], documents=[], is_massive=torch.zeros(n, dtype=torch.bool), concepts=[],
    is_held_out=torch.zeros(n, dtype=torch.bool),
)
fit = FitConfig(rank=int(sys.argv[3]), max_iter=5, tol=0.0, max_memory_gib=limit)
warm = torch.randn(512, 512) @ torch.randn(512, 512)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
source = source_of(reader, fit, inputs, scratch_folder=folder)
fitted, _ = source.fit(fit, None, lambda *_: None)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
values = fitted.coefficients
nonzeros = values.nnz if hasattr(values, "nnz") else int((values > 0).sum())
sys.stdout.write(json.dumps({
    "kind": type(source).__name__, "peak": peak * 1024, "nonzeros": nonzeros,
    "explained": fitted.explained_variance, "trace": fitted.objective_trace,
}))
"""


def fitted_in_a_process(folder: Path, limit: float) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(limit), str(RANK)],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    return json.loads(done.stdout)


def test_peak_memory(tmp_path: Path, report: Callable[[str], None]) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(RANK, WIDTH, generator=generator), dim=1)
    records = []
    for number in range(N_SHARDS):
        coefficients = torch.rand(SHARD_ROWS, RANK, generator=generator)
        coefficients *= torch.rand(SHARD_ROWS, RANK, generator=generator) < 0.05
        noise = 0.01 * torch.randn(SHARD_ROWS, WIDTH, generator=generator)
        file = write_shard(tmp_path / f"{number}.parquet", coefficients @ rows + noise)
        records.append(
            vars(
                ShardRecord(
                    **vars(file), shard=number, first_row=number * SHARD_ROWS, n_dropped_special=0
                )
            )
        )
    (tmp_path / "shards.json").write_text(json.dumps(records))
    streamed = fitted_in_a_process(tmp_path, 0.0)
    in_memory = fitted_in_a_process(tmp_path, 1e6)
    assert (streamed["kind"], in_memory["kind"]) == ("ShardSource", "MatrixSource")
    assert streamed["trace"] == pytest.approx(in_memory["trace"], rel=1e-4)

    shard = SHARD_ROWS * WIDTH * 4
    # A coefficient above zero takes its value and its column.
    factors = 3 * RANK * WIDTH * 4 + 8 * streamed["nonzeros"]
    allowed = 1.2 * (shard + factors)
    mb = 1e-6
    report(
        f"{N_SHARDS} shards of {SHARD_ROWS} x {WIDTH}, k = {RANK}: streamed "
        f"{streamed['peak'] * mb:.0f} MB, in memory {in_memory['peak'] * mb:.0f} MB "
        f"({streamed['peak'] / in_memory['peak']:.0%}); one shard in float32 {shard * mb:.0f} MB, "
        f"factors {factors * mb:.0f} MB"
    )
    met = "met   " if streamed["peak"] <= allowed else "MISSED"
    report(
        f"{met} peak by one shard + factors: {streamed['peak'] / (shard + factors):.2f} "
        "(target 1.20)"
    )
