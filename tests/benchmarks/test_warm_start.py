"""What new documents cost: a warm refit and a projection as share of a cold fit.

CPU seconds of this process, the best of three runs of each, taken in turn: other processes on the
machine then weigh least. A tenth of the documents is new.
"""

import time
from collections.abc import Callable

import dagster as dg
import numpy as np
import polars as pl
import pytest
import torch
from mini_study import write_study
from platform_of_test import Platform
from torch import Tensor

from assets.activations.shards import ActivationReader, ShardRecord
from assets.activations.tables import ACTIVATION_SHARDS, TOKENS
from assets.factorization.config import FitConfig
from assets.factorization.inputs import mean_row_norm
from assets.factorization.methods import factorize
from assets.factorization.metrics import match_features
from assets.factorization.projection import KeptFit, project_tokens
from orchestration.partition_sync import sync_partitions
from resources.study_files import StudiesResource

pytestmark = pytest.mark.benchmark
N_RUNS = 3
FIT = FitConfig(rank=64, keep_fraction=0.01)


def compare(
    activations: Tensor, n_before: int, what: str, report: Callable[[str], None]
) -> tuple[float, float]:
    """CPU time of a warm refit and of a projection, as shares of a cold fit's."""
    old = activations[:n_before]
    before = factorize(old, FIT)
    scale = mean_row_norm(old)
    ways = {
        "cold": lambda: factorize(activations, FIT),
        "warm": lambda: factorize(activations, FIT, start_dictionary=before.dictionary),
        "projected": lambda: project_tokens(activations, FIT, KeptFit(before.dictionary, scale)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    made = {}
    for _ in range(N_RUNS):
        for name, way in ways.items():
            begin = time.process_time()
            made[name] = way()
            seconds[name].append(time.process_time() - begin)
    best = {name: min(values) for name, values in seconds.items()}
    report(f"{what}: {len(activations)} tokens x {activations.shape[1]}, {n_before} before")
    for name, fitted in made.items():
        kept = (match_features(fitted.dictionary, before.dictionary).cosine >= 0.7).mean()
        report(
            f"  {name:9} {best[name]:7.2f} CPU s  {best[name] / best['cold']:6.1%} of cold  "
            f"{fitted.n_iter:4d} iterations  explained variance {fitted.explained_variance:.4f}  "
            f"{kept:.0%} of the features kept"
        )
    assert made["warm"].explained_variance > made["cold"].explained_variance - 0.01
    assert made["projected"].explained_variance > made["cold"].explained_variance - 0.05
    return best["warm"] / best["cold"], best["projected"] / best["cold"]


def test_planted_features(report: Callable[[str], None]) -> None:
    generator = torch.Generator().manual_seed(0)
    n_tokens, width, k, support = 10_000, 1_536, 64, 15
    neurons = torch.rand(k, width, generator=generator).argsort(dim=1)[:, :support]
    weights = torch.randn(k, support, generator=generator)
    rows = torch.nn.functional.normalize(torch.zeros(k, width).scatter_(1, neurons, weights), dim=1)
    is_active = torch.rand(n_tokens, k, generator=generator) < 0.1
    coefficients = is_active * (0.5 + torch.rand(n_tokens, k, generator=generator))
    noise = 0.03 * torch.randn(n_tokens, width, generator=generator)
    warm, projected = compare(coefficients @ rows + noise, 9_000, "planted", report)
    assert projected < warm < 1


def test_the_bundled_corpus(platform: Platform, report: Callable[[str], None]) -> None:
    write_study(platform.root / "studies", corpus={"path": "bundled:concepts"})
    studies, _ = StudiesResource(folder=str(platform.root / "studies")).readable()
    sync_partitions(platform.instance, studies, may_remove=False)
    site = studies[0].sites()[0].key
    for job, key in (("corpus_job", "mini"), ("activations_job", site)):
        platform.definitions().resolve_job_def(job).execute_in_process(
            instance=platform.instance, partition_key=key
        )
    lake = platform.lake
    rows = lake.read(ACTIVATION_SHARDS, {"site": site}).to_dicts()
    shards = [ShardRecord.from_row(row) for row in rows]
    activations = ActivationReader(shards, lake.shards_folder).load().float()
    tokens = lake.read(TOKENS, {"site": site}).filter(~pl.col("is_massive"))
    # New documents of any concept: documents in random order, the first nine tenths before.
    names = tokens["document_id"].unique(maintain_order=True).to_list()
    order = np.random.default_rng(0).permutation(len(names))
    is_before = tokens["document_id"].is_in([names[i] for i in order[: 9 * len(names) // 10]])
    before, after = tokens.filter(is_before)["row"], tokens.filter(~is_before)["row"]
    chosen = torch.tensor([*before.to_list(), *after.to_list()])
    warm, projected = compare(activations[chosen], len(before), f"bundled corpus, {site}", report)
    assert projected < warm < 1


@pytest.fixture
def platform(tmp_path, cache_folder):
    (tmp_path / "studies").mkdir()
    with dg.DagsterInstance.ephemeral(str(tmp_path)) as instance:
        yield Platform(tmp_path, instance, cache_folder)
