"""The ablation behind the defaults of the coordinate solver: one setting changed at a time.

On the `tuning` half of the bundled corpus; figures for users come from the other half
(test_against_the_paper.py). Prints the table of docs/decisions.md.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.real_activations import real_sites

from assets.factorization.semi_nmf import SemiNMF

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(4 * 3600)]
RANK = 100
SEEDS = range(int(os.environ.get("FEATURELAKE_BENCH_SEEDS", "4")))
VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "coefficient_penalty 0": {"coefficient_penalty": 0.0},
    "coefficient_penalty 0.015": {"coefficient_penalty": 0.015},
    "coefficient_penalty 0.035": {"coefficient_penalty": 0.035},
    "coefficient_penalty 0.05": {"coefficient_penalty": 0.05},
    "penalty_concavity 0 (L1)": {"penalty_concavity": 0.0},
    "penalty_concavity 0.5": {"penalty_concavity": 0.5},
    "penalty_concavity 0.8": {"penalty_concavity": 0.8},
    "column_scaling 0": {"column_scaling": 0.0},
    "column_scaling 0.4": {"column_scaling": 0.4},
    "column_scaling 1": {"column_scaling": 1.0},
    "row_scaling 0": {"row_scaling": 0.0},
    "row_scaling 1": {"row_scaling": 1.0},
    "neither scaling": {"column_scaling": 0.0, "row_scaling": 0.0},
    "init random": {"init": "random"},
    "init svd": {"init": "svd"},
    "tol 1e-3": {"tol": 1e-3},
    "tol 1e-5": {"tol": 1e-5},
    "multiplicative, 300 iterations": {
        "solver": "multiplicative",
        "init": "random",
        "max_iter": 300,
    },
}


def test_one_setting_at_a_time(report: Callable[[str], None]) -> None:
    sites = real_sites("tuning")
    report(f"{len(sites)} sites, {len(SEEDS)} seeds, k = {RANK}, keep 1 %")
    report("| setting | explained variance | 1 - AUROC (± s.e. over seeds) | above zero | s |")
    report("|---|---|---|---|---|")
    for name, settings in VARIANTS.items():
        values = np.zeros((len(sites), len(SEEDS), 4))
        for i, site in enumerate(sites):
            for j, seed in enumerate(SEEDS):
                values[i, j] = _measured(site, seed, dict(settings))
        means = values.mean(axis=(0, 1))
        spread = values[:, :, 1].mean(axis=0).std(ddof=1) / len(SEEDS) ** 0.5
        report(
            f"| {name} | {means[0]:.4f} | {means[1]:.4f} ± {spread:.4f} | {means[2]:.1%} | "
            f"{means[3]:.1f} |"
        )


def _measured(site: Any, seed: int, settings: dict[str, Any]) -> tuple[float, float, float, float]:
    rows = site.activations
    begin = time.perf_counter()
    model = SemiNMF(RANK, random_state=seed, **settings).fit(rows)
    coefficients = torch.as_tensor(model.transform(rows))
    return (
        site.explained(coefficients, torch.as_tensor(model.components_)),
        float(site.errors(coefficients).mean()),
        float((coefficients > 0).float().mean()),
        time.perf_counter() - begin,
    )
