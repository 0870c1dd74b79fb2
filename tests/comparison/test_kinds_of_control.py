"""Each kind of control tells by itself; `every` calls what stands out from all kinds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import torch
from scipy.sparse import csr_matrix
from scipy.stats import rankdata
from torch import Tensor

from assets.comparison.config import ComparisonConfig
from assets.comparison.feature_significance import EVERY, p_against_controls, significance_rows
from assets.comparison.fits import ComparedFit
from assets.comparison.metrics import METRICS
from assets.comparison.tables import FEATURE_SIGNIFICANCE
from assets.factorization.config import FitConfig
from assets.factorization.factorization import Factorization
from assets.factorization.methods import factorize
from assets.factorization.projection import KeptFit, project_tokens
from assets.factorization.sparse_rows import keep_largest, support_size, unit_rows
from assets.shared.false_discovery import q_values
from tests.comparison.planted_fits import PARTITION, planted_fit

CONFIG = ComparisonConfig()
KEEP = 0.1
RANK, WIDTH, N_DOCUMENTS, TOKENS = 5, 800, 120, 4
CONCEPTS = tuple("abcdef")


def of_auroc(fits: list[ComparedFit], config: ComparisonConfig = CONFIG) -> pl.DataFrame:
    rows = significance_rows(fits, config, [METRICS["concept_auroc"]])
    FEATURE_SIGNIFICANCE.conform(rows, PARTITION)
    return rows


def n_called(rows: pl.DataFrame, control: str) -> int:
    return int(rows.filter(control=control)["is_significant"].sum())


def test_a_kinds_rows_are_those_of_a_site_with_that_kind_alone() -> None:
    generator = np.random.default_rng(0)
    fit = planted_fit("snmf-k030", [*generator.normal(1, 1, 29), None])
    controls = {
        "random-k040": generator.normal(0, 1, 40),
        "random-k025": generator.normal(0, 1, 25),  # of the same kind: pooled with it
        "covariance-k050": generator.normal(0.5, 1, 50),
    }
    planted = {key: planted_fit(key, c, is_control=True) for key, c in controls.items()}
    rows = of_auroc([fit, *planted.values()])
    assert set(rows["control"]) == {"random", "covariance", EVERY}
    for kind in ("random", "covariance"):
        alone = [one for key, one in planted.items() if key.startswith(kind)]
        expected = of_auroc([fit, *alone])
        assert rows.filter(control=kind).equals(expected.filter(control=kind))
        # With one kind, every is that kind.
        for name in ("p_value", "q_value", "is_significant", "n_controls", "status", "reason"):
            assert expected.filter(control=kind)[name].equals(expected.filter(control=EVERY)[name])
    of_every = rows.filter(control=EVERY)
    by_kind = [
        p_against_controls(
            fit.values("concept_auroc").to_numpy(),
            np.sort(np.concatenate([c for key, c in controls.items() if key.startswith(kind)])),
        )
        for kind in ("random", "covariance")
    ]
    found = of_every["p_value"]
    np.testing.assert_allclose(found.drop_nulls().to_numpy(), np.maximum(*by_kind))
    assert (by_kind[0] > by_kind[1]).any() and (by_kind[0] < by_kind[1]).any()
    # Its q-values are of its own p-values, not the largest of the kinds'.
    assert of_every["q_value"].to_list() == pytest.approx(q_values(found.to_list()))
    assert set(of_every["n_controls"]) == {50}
    assert found.null_count() == 1 == of_every.filter(status="no_value").height


def test_many_easy_controls_lend_nothing_to_a_hard_one() -> None:
    """Pooled, the values that half of one kind reach would be significant."""
    scores = [0.9] * 10
    easy, hard = np.linspace(0.4, 0.6, 960), np.linspace(0.8, 1.0, 40)
    fits = [
        planted_fit("snmf-k010", scores),
        planted_fit("random-k960", easy, is_control=True),
        planted_fit("covariance-k040", hard, is_control=True),
    ]
    rows = of_auroc(fits)
    assert n_called(rows, "random") == 10
    assert n_called(rows, "covariance") == n_called(rows, EVERY) == 0
    pooled = p_against_controls(np.array(scores), np.sort(np.concatenate([easy, hard])))
    assert (pooled < CONFIG.fdr).all()
    assert (rows.filter(control=EVERY)["p_value"] > 0.4).all()


def test_every_asks_each_kind_and_names_the_one_that_has_too_few() -> None:
    fits = [
        planted_fit("snmf-k002", [0.9, 0.1]),
        planted_fit("random-k100", np.linspace(0.3, 0.6, 100), is_control=True),
        planted_fit("covariance-k005", np.linspace(0.3, 0.6, 5), is_control=True),
    ]
    rows = of_auroc(fits)
    assert set(rows.filter(control="random")["status"]) == {"ok"}
    for control in ("covariance", EVERY):
        row = rows.filter(control=control, feature_id=0).row(0, named=True)
        assert (row["status"], row["is_significant"]) == ("too_few_controls", None)
        assert "5 control features of method covariance" in row["reason"]
        assert row["p_value"] == pytest.approx(1 / 6)
    fits[2] = planted_fit("covariance-k005", [None] * 5, is_control=True)
    rows = of_auroc(fits)
    kind, every = (
        rows.filter(control=c, feature_id=0).row(0, named=True) for c in ("covariance", EVERY)
    )
    for row in (kind, every):
        assert (row["status"], row["p_value"], row["q_value"]) == ("no_controls", None, None)
        assert (row["n_controls"], row["is_significant"]) == (0, None)
        assert "no control feature of method covariance has a concept_auroc" in row["reason"]


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_false_discoveries_of_every_stay_below_the_level(shift: float) -> None:
    """Nulls are exchangeable with one kind; the other is as hard, or easier by `shift`."""
    generator = np.random.default_rng(2)
    level = 0.2
    any_called, of_easy, false_shares = [], [], []
    for _ in range(300):
        null = generator.normal(size=30)
        half = np.concatenate([generator.normal(4, 1, 10), null[:20]])
        fits = [
            planted_fit("pca-k030", null),
            planted_fit("snmf-k030", half),
            planted_fit("random-k060", generator.normal(-shift, 1, 60), is_control=True),
            planted_fit("covariance-k060", generator.normal(size=60), is_control=True),
        ]
        rows = of_auroc(fits, ComparisonConfig(fdr=level))
        of_every = rows.filter(control=EVERY)
        any_called.append(of_every.filter(fit="pca-k030")["is_significant"].any())
        of_easy.append(n_called(rows.filter(fit="pca-k030"), "random") > 0)
        of_half = of_every.filter(fit="snmf-k030")["is_significant"]
        false_shares.append(int(of_half[10:].sum()) / max(int(of_half.sum()), 1))
    assert np.mean(any_called) <= level + 0.03
    assert 0 < np.mean(false_shares) <= level
    # The easier kind alone calls null features far more often than the level.
    assert shift == 0 or np.mean(of_easy) > level + 0.2


def concepts_in_two_factors() -> tuple[Tensor, np.ndarray]:
    """Six concepts as points of a circle in two factors: weak in each neuron, strong in all."""
    generator = torch.Generator().manual_seed(0)
    number = torch.arange(N_DOCUMENTS) % len(CONCEPTS)
    angles = 2 * torch.pi * number / len(CONCEPTS)
    points = 2**0.5 * torch.stack([angles.cos(), angles.sin()], dim=1)
    loadings = 0.1 * torch.randn(2, WIDTH, generator=generator)
    rows = 0.5 * torch.randn(N_DOCUMENTS, TOKENS, WIDTH, generator=generator)
    rows += (points @ loadings)[:, None]
    return rows.flatten(0, 1), np.array([CONCEPTS[i] for i in number])


def concept_aurocs(coefficients: Tensor | csr_matrix, concepts: np.ndarray) -> np.ndarray:
    """Each feature's best AUROC over concepts; a document's score is its largest coefficient."""
    assert isinstance(coefficients, Tensor)
    pooled = coefficients.reshape(N_DOCUMENTS, TOKENS, -1).amax(dim=1).numpy()
    ranks = rankdata(pooled, axis=0)
    best = np.zeros(pooled.shape[1])
    for concept in CONCEPTS:
        is_of = concepts == concept
        n_of = int(is_of.sum())
        wins = ranks[is_of].sum(axis=0) - n_of * (n_of + 1) / 2
        best = np.maximum(best, wins / (n_of * (N_DOCUMENTS - n_of)))
    return best


def test_what_knows_only_the_spread_stands_out_from_isotropic_controls_alone() -> None:
    """Directions that learned nothing, drawn with the data's covariance by other means."""
    activations, concepts = concepts_in_two_factors()
    factor = torch.linalg.cholesky(torch.cov(activations.t().double()) + 1e-6 * torch.eye(WIDTH))
    generator = torch.Generator().manual_seed(5)
    scale = float(activations.norm(dim=1).mean())

    def unlearned(fit: FitConfig) -> Factorization:
        draws = torch.randn(RANK, WIDTH, generator=generator, dtype=torch.float64) @ factor.t()
        rows = unit_rows(keep_largest(draws.float(), support_size(KEEP, WIDTH)))
        return project_tokens(activations, fit, KeptFit(rows, scale))

    def scores(method: str, n: int, made: Callable[[FitConfig], Factorization]) -> np.ndarray:
        settings = {"method": method, "rank": RANK, "keep_fraction": KEEP}
        fits = [FitConfig.model_validate(settings | {"seed": seed}) for seed in range(n)]
        return np.concatenate([concept_aurocs(made(fit).coefficients, concepts) for fit in fits])

    fits = [planted_fit("unlearned-k040", scores("covariance", 8, unlearned))]
    for method in ("random", "permuted", "covariance"):
        found = scores(method, 24, lambda fit: factorize(activations, fit))
        fits.append(planted_fit(f"{method}-k120", found, is_control=True))
    rows = of_auroc(fits)
    assert n_called(rows, "random") >= 15 and n_called(rows, "permuted") >= 15
    assert n_called(rows, "covariance") == n_called(rows, EVERY) == 0
    # Without the control, every calls them.
    assert n_called(of_auroc(fits[:-1]), EVERY) >= 15
