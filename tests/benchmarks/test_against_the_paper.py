"""The default solver against the paper's own algorithm, on real activations, in one run.

The baseline is the multiplicative solver from a random start for the 2,000 iterations of the
paper's demo, its best iterate kept, without early stop. Both see the same activations and have the
same rank and sparsity; the default solver has one setting everywhere, its defaults. Prints every
ratio beside its target, and fails where one is missed, naming it. About 50 minutes;
FEATURELAKE_BENCH_SEEDS=1 takes a fifth of it, and FEATURELAKE_BENCH_MODEL=gemma3-270m half.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.real_activations import RealSite, real_sites

from assets.factorization.initialization import initial_coefficients
from assets.factorization.inputs import mean_row_norm, neuron_rows
from assets.factorization.multiplicative_solver import fit_multiplicative
from assets.factorization.scaling import measure_scales
from assets.factorization.semi_nmf import SemiNMF
from assets.factorization.sparse_rows import support_size
from assets.factorization.token_blocks import MatrixBlocks, MemoryStore

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(4 * 3600)]
RANK = 100
KEEP_FRACTION = 0.01
BASELINE_ITERATIONS = 2_000
SEEDS = range(int(os.environ.get("FEATURELAKE_BENCH_SEEDS", "5")))
MOST_ITERATIONS_TO_REACH = 100


def baseline(site: RealSite, seed: int) -> dict[str, Any]:
    scale = mean_row_norm(site.activations)
    neurons = neuron_rows(site.activations, scale)
    size = support_size(KEEP_FRACTION, neurons.shape[0])
    begin = time.perf_counter()
    start = initial_coefficients(neurons, RANK, "random", torch.Generator().manual_seed(seed))
    result, found = fit_multiplicative(
        neurons,
        start,
        size,
        max_iter=BASELINE_ITERATIONS,
        tol=0.0,
        patience=BASELINE_ITERATIONS,
    )
    seconds = time.perf_counter() - begin
    coefficients = (found.t() * scale).contiguous()
    return {
        "seconds": seconds,
        "explained_variance": site.explained(coefficients, result.dictionary),
        "errors": site.errors(coefficients),
        "share_above_zero": float((coefficients > 0).float().mean()),
    }


def default_fit(site: RealSite, seed: int, **settings: Any) -> dict[str, Any]:
    model = SemiNMF(RANK, keep_fraction=KEEP_FRACTION, random_state=seed, **settings)
    begin = time.perf_counter()
    coefficients = torch.as_tensor(model.fit_transform(site.activations))
    return {
        "seconds": time.perf_counter() - begin,
        "explained_variance": model.explained_variance_,
        "coefficients": coefficients,
        "share_above_zero": float((coefficients > 0).float().mean()),
        "n_iter": model.n_iter_,
    }


def reaching(site: RealSite, seed: int, target: float) -> dict[str, Any]:
    """When the solver's own factors explain as much, the time of scaling and start included.

    As for the baseline, they are the factors after an iteration, in the units of the activations;
    measuring them is not in the time. `whole_seconds` is that of the shortest whole fit, with the
    final coefficients solved and its own explained variance measured.
    """
    reached: dict[str, Any] = {}
    for n_iter in range(1, MOST_ITERATIONS_TO_REACH):
        if "seconds" not in reached:
            seconds, explained = _solver_alone(site, seed, n_iter)
            if explained >= target:
                reached |= {"seconds": seconds, "n_iter": n_iter}
        if "whole_seconds" not in reached:
            made = default_fit(site, seed, max_iter=n_iter, tol=0.0)
            if made["explained_variance"] >= target:
                reached["whole_seconds"] = made["seconds"]
        if len(reached) == 3:
            return reached
    raise AssertionError(f"{site.name}: explained variance {target:.3f} was not reached")


def _solver_alone(site: RealSite, seed: int, n_iter: int) -> tuple[float, float]:
    model = SemiNMF(RANK, keep_fraction=KEEP_FRACTION, random_state=seed, max_iter=n_iter, tol=0.0)
    blocks = MatrixBlocks(site.activations)
    store = MemoryStore(blocks, RANK, site.activations)
    begin = time.perf_counter()
    model.fit_blocks(blocks, store=store)
    seconds = time.perf_counter() - begin
    # The fit's rows are of unit length in scaled neurons; in plain ones their scale goes to Y, and
    # so does that of the tokens.
    scales = measure_scales(blocks, model.column_scaling, model.row_scaling)
    dictionary = torch.as_tensor(model.components_)
    lengths = 1 / torch.linalg.vector_norm(dictionary / scales.columns, dim=1)
    of_rows = scales.of_rows(site.activations)[:, None]
    coefficients = (store.load(0).t() * lengths * model.scale_ * of_rows).contiguous()
    return seconds, site.explained(coefficients, dictionary)


def iteration_ratio(site: RealSite, seed: int) -> float:
    """Time of one iteration by time of one dense Aᵀ Y, the medians of several in turn."""

    def fit_seconds(n_iter: int) -> float:
        blocks = MatrixBlocks(site.activations)
        begin = time.perf_counter()
        SemiNMF(
            RANK, keep_fraction=KEEP_FRACTION, random_state=seed, max_iter=n_iter, tol=0.0
        ).fit_blocks(blocks)
        return time.perf_counter() - begin

    coefficients = torch.rand(site.activations.shape[0], RANK)
    columns = site.activations.t().contiguous()
    iterations, products = [], []
    for _ in range(3):
        iterations.append((fit_seconds(23) - fit_seconds(3)) / 20)
        for _ in range(10):
            begin = time.perf_counter()
            torch.mm(columns, coefficients)
            products.append(time.perf_counter() - begin)
    return float(np.median(iterations) / np.median(products))


def interval(differences: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of a mean over concepts."""
    draws = np.random.default_rng(0).choice(differences, (2_000, len(differences))).mean(axis=1)
    return float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975))


def test_default_solver_against_the_papers(
    report: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> None:
    sites = real_sites("report")
    rows: list[dict[str, Any]] = []
    site_intervals: list[tuple[str, float, float]] = []
    report(
        f"{torch.get_num_threads()} threads; k = {RANK}, keep {KEEP_FRACTION:.0%}, "
        f"{len(SEEDS)} seeds; EV explained variance, err 1 - concept AUROC"
    )
    for site in sites:
        n_tokens, width = site.activations.shape
        cost = iteration_ratio(site, 0)
        report(f"{site.name}: {n_tokens} tokens x {width}; iteration / dense product {cost:.2f}")
        differences = []
        for seed in SEEDS:
            base = baseline(site, seed)
            made = default_fit(site, seed)
            short = reaching(site, seed, base["explained_variance"])
            errors = site.errors(made["coefficients"])
            differences.append(errors - base["errors"])
            row = {
                "site": site.name,
                "seed": seed,
                "iteration_cost": cost,
                "baseline_seconds": base["seconds"],
                "reach_seconds": short["seconds"],
                "reach_iterations": short["n_iter"],
                "reach_whole_share": short["whole_seconds"] / base["seconds"],
                "reach_share": short["seconds"] / base["seconds"],
                "seconds": made["seconds"],
                "n_iter": made["n_iter"],
                "baseline_ev": base["explained_variance"],
                "ev": made["explained_variance"],
                "baseline_error": float(base["errors"].mean()),
                "error": float(errors.mean()),
                "error_differences": (errors - base["errors"]).tolist(),
                "share_above_zero": made["share_above_zero"],
            }
            rows.append(row)
            change = row["error"] / row["baseline_error"] - 1
            report(
                f"  seed {seed}: to the baseline's EV {row['reach_seconds']:.2f} s of "
                f"{row['baseline_seconds']:.0f} s = 1/{1 / row['reach_share']:.0f} "
                f"({row['reach_iterations']} iterations; 1/{1 / row['reach_whole_share']:.0f} "
                "with final coefficients); EV "
                f"{row['ev']:.3f} against {row['baseline_ev']:.3f}; err {row['error']:.3f} "
                f"against {row['baseline_error']:.3f} ({change:+.0%}); "
                f"{row['share_above_zero']:.0%} above zero; {row['n_iter']} iterations, "
                f"{row['seconds']:.1f} s"
            )
        site_intervals.append((site.name, *interval(np.mean(differences, axis=0))))
    out = Path(os.environ.get("FEATURELAKE_BENCH_OUT", tmp_path_factory.mktemp("bench")))
    name = f"against_the_paper_{'_'.join(sorted({site.model for site in sites}))}.json"
    (out / name).write_text(json.dumps(rows, indent=1))
    missed = _summary(rows, site_intervals, report)
    # The targets are means over both models; of one alone the ratios are only shown.
    if len({site.model for site in sites}) > 1:
        assert not missed, missed


def _summary(
    rows: list[dict[str, Any]],
    site_intervals: list[tuple[str, float, float]],
    report: Callable[[str], None],
) -> list[str]:
    """Prints every ratio beside its target; those that were missed."""

    def column(name: str) -> np.ndarray:
        return np.array([row[name] for row in rows])

    gain = column("ev") - column("baseline_ev")
    names = list(dict.fromkeys(row["site"] for row in rows))
    of_site = np.array([names.index(row["site"]) for row in rows])

    def by_site(name: str) -> np.ndarray:
        return np.array([column(name)[of_site == i].mean() for i in range(len(names))])

    fall = 1 - column("error").mean() / column("baseline_error").mean()
    falls = 1 - by_site("error") / by_site("baseline_error")
    worse = [name for name, low, _ in site_intervals if low > 0]
    dense, share = by_site("share_above_zero"), column("reach_share")
    whole = column("reach_whole_share")
    missed: list[str] = []
    for what, value, is_met in (
        (
            "time to the baseline's explained variance, share of its own, worst (target 1/100)",
            f"1/{1 / share.max():.0f}, mean 1/{1 / share.mean():.0f}; with final coefficients "
            f"1/{1 / whole.max():.0f}, mean 1/{1 / whole.mean():.0f}",
            share.max() <= 0.01,
        ),
        ("explained variance, mean gain (target 0.03)", f"{gain.mean():+.4f}", gain.mean() >= 0.03),
        ("explained variance, least gain (target 0)", f"{gain.min():+.4f}", gain.min() >= 0),
        (
            "1 - AUROC, fall of the mean (target 35 %)",
            f"{fall:.1%}; by site {', '.join(f'{f:.0%}' for f in falls)}",
            fall >= 0.35,
        ),
        (
            "1 - AUROC, sites where it is higher beyond the 95 % interval (target none)",
            ", ".join(worse)
            or "none; intervals of the difference: "
            + ", ".join(f"[{low:+.3f}, {high:+.3f}]" for _, low, high in site_intervals),
            not worse,
        ),
        (
            "coefficients above zero (target 25 %)",
            f"mean {dense.mean():.1%}, densest site {dense.max():.1%}",
            dense.mean() <= 0.25,
        ),
        (
            "one iteration by one dense product, worst site (target 3)",
            f"{column('iteration_cost').max():.2f}",
            column("iteration_cost").max() <= 3,
        ),
    ):
        line = f"{what}: {value}"
        report(f"{'met   ' if is_met else 'MISSED'} {line}")
        if not is_met:
            missed.append(line)
    return missed
