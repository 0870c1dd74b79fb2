"""The control `covariance`: drawn as the data vary, thinned, seeded, and made anew on time."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from factorization.changing_documents import Corpus, fit_of, make, stored
from torch import Tensor

from assets.factorization.config import FitConfig
from assets.factorization.inputs import FactorizationError
from assets.factorization.methods import factorize
from assets.factorization.null_controls import covariance_dictionary
from assets.factorization.sparse_rows import keep_largest, unit_rows
from assets.factorization.token_blocks import MatrixBlocks, StreamedBlocks

WIDTH = 12


def spread_activations(n_tokens: int = 500, offset: float = 4.0) -> Tensor:
    """Few loud directions across neurons, far from the origin."""
    generator = torch.Generator().manual_seed(0)
    loadings = torch.randn(3, WIDTH, generator=generator) * torch.tensor([[3.0], [1.5], [0.5]])
    latent = torch.randn(n_tokens, 3, generator=generator)
    return offset + latent @ loadings + 0.2 * torch.randn(n_tokens, WIDTH, generator=generator)


def drawn(activations: Tensor, n_features: int, size: int = WIDTH, seed: int = 0) -> Tensor:
    return covariance_dictionary(MatrixBlocks(activations), n_features, size, seed)


def covariance_config(rank: int = 8, **settings) -> FitConfig:
    return FitConfig(method="covariance", rank=rank, **settings)


def test_drawn_directions_vary_as_unit_draws_of_the_datas_covariance() -> None:
    """Against draws by another way: Cholesky factor of torch.cov, normalized in the same way."""
    activations = spread_activations()
    rows = drawn(activations, 6_000)
    covariance = torch.cov(activations.t().double())
    factor = torch.linalg.cholesky(covariance)
    generator = torch.Generator().manual_seed(7)
    draws = torch.randn(60_000, WIDTH, generator=generator, dtype=torch.float64)
    expected = unit_rows(draws @ factor.t())
    found = rows.double()
    # No component along the mean beyond what the data have there: they are centred.
    assert found.mean(dim=0).abs().max() < 0.05
    second, wanted = found.t() @ found / len(found), expected.t() @ expected / len(expected)
    assert (second - wanted).norm() < 0.05 * wanted.norm()
    isotropic = torch.eye(WIDTH).double() / WIDTH
    assert (isotropic - wanted).norm() > 0.5 * wanted.norm()


def test_what_is_drawn_is_the_formula() -> None:
    """d = (A - mean)ᵀ g: the same combination of centred rows as of rows whose mean is 0."""
    activations = spread_activations(offset=0.0).double()
    centred = activations - activations.mean(dim=0)
    torch.testing.assert_close(
        drawn(activations + 100.0, 5), drawn(centred, 5), rtol=1e-5, atol=1e-6
    )
    # All lie in the span of the centred rows.
    few = spread_activations(4).double()
    basis = torch.linalg.svd(few - few.mean(dim=0), full_matrices=False).Vh[:3]
    rows = drawn(few, 5).double()
    torch.testing.assert_close(rows @ basis.t() @ basis, rows, rtol=1e-5, atol=1e-6)
    assert torch.linalg.matrix_rank(rows, rtol=1e-5) == 3


@pytest.mark.parametrize(("keep_fraction", "size"), [(0.25, 3), (0.5, 6), (1.0, WIDTH)])
def test_the_largest_weights_stay(keep_fraction: float, size: int) -> None:
    activations = spread_activations()
    dense = drawn(activations, 8)
    fitted = factorize(activations, covariance_config(keep_fraction=keep_fraction))
    assert ((fitted.dictionary != 0).sum(dim=1) == size).all()
    torch.testing.assert_close(fitted.dictionary, unit_rows(keep_largest(dense, size)))


def test_each_feature_has_a_seed_of_its_own() -> None:
    activations = spread_activations()
    torch.testing.assert_close(drawn(activations, 9)[:4], drawn(activations, 4))
    assert not torch.allclose(drawn(activations, 4), drawn(activations, 4, seed=1))
    cosines = drawn(activations, 4) @ drawn(activations, 4).t()
    assert (cosines - torch.eye(4)).abs().max() < 0.9999


def test_how_tokens_are_cut_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    activations = spread_activations()
    whole = drawn(activations, 6)
    ends = (0, 1, 8, 300, 300, 500)
    cut = StreamedBlocks(
        lambda b: activations[ends[b] : ends[b + 1]],
        [after - before for before, after in pairwise(ends)],
        WIDTH,
    )
    monkeypatch.setattr("assets.factorization.null_controls.ROWS_AT_ONCE", 70)
    torch.testing.assert_close(covariance_dictionary(cut, 6, WIDTH, 0), whole)


def test_without_covariance_there_is_no_control() -> None:
    with pytest.raises(FactorizationError, match="all 20 activation rows of the fit are alike"):
        factorize(torch.full((20, WIDTH), 0.1), covariance_config())


def test_massive_tokens_have_no_part_in_the_covariance() -> None:
    activations = spread_activations()
    massive = torch.zeros(1, WIDTH)
    massive[0, 5] = 1e4
    together = torch.cat([activations[:100], massive, activations[100:]])
    is_massive = torch.arange(len(together)) == 100
    clean = factorize(activations, covariance_config(keep_fraction=1.0))
    found = factorize(together, covariance_config(keep_fraction=1.0), is_massive=is_massive)
    torch.testing.assert_close(found.dictionary, clean.dictionary)
    blind = factorize(together, covariance_config(keep_fraction=1.0))
    assert blind.dictionary[:, 5].abs().min() > 0.99 > clean.dictionary[:, 5].abs().max()


def test_the_dictionary_is_made_anew_of_the_tokens_there_are_now() -> None:
    """Few new documents leave it (its coefficients follow); many, or other settings, redraw it."""
    fit = fit_of("covariance")
    old = Corpus(range(100))
    before = make(old, fit)
    one_more, many_more = Corpus([*range(100), 110]), Corpus(range(130))
    assert one_more.inputs.fingerprint("s", fit) != old.inputs.fingerprint("s", fit)
    projected = make(one_more, fit, before)
    assert projected.refit.start == "projected"
    assert torch.equal(projected.factorization.dictionary, before.factorization.dictionary)
    refitted = make(many_more, fit, before)
    assert refitted.refit.start == "cold" and "more than refit_share" in refitted.refit.reason
    fresh = make(many_more, fit)
    assert torch.equal(refitted.factorization.dictionary, fresh.factorization.dictionary)
    assert not torch.allclose(fresh.factorization.dictionary, before.factorization.dictionary)
    without_past = fit_of("covariance", warm_start=False)
    redrawn = make(one_more, without_past, make(old, without_past))
    assert redrawn.refit.start == "cold"
    expected = factorize(one_more.activations, without_past)
    assert torch.equal(redrawn.factorization.dictionary, expected.dictionary)
    assert not torch.equal(redrawn.factorization.dictionary, before.factorization.dictionary)
    assert stored(redrawn).inputs_fingerprint == one_more.inputs.fingerprint(
        "code-and-settings", without_past
    )
