"""The mean row is of the tokens a dictionary was fitted on, and stays with the dictionary."""

from __future__ import annotations

import pytest
import torch
from factorization.changing_documents import Corpus, fit_of, make

from assets.factorization.mean_row import ROWS_AT_ONCE, mean_row_of
from assets.factorization.tables import FACTORIZATIONS


@pytest.mark.parametrize("method", ["snmf", "diff_means", "random", "pca"])
def test_a_fit_records_the_mean_of_its_tokens_and_a_projection_keeps_it(method: str) -> None:
    fit = fit_of(method)
    corpus = Corpus(range(100), massive=[3, 4])
    before = make(corpus, fit)
    is_fit = ~corpus.inputs.is_massive
    if fit.is_supervised:
        is_fit &= ~corpus.inputs.is_held_out
    recorded = torch.tensor(before.frames[FACTORIZATIONS]["mean_row"].item().to_list())
    torch.testing.assert_close(recorded, corpus.activations[is_fit].mean(dim=0).float())
    assert not torch.allclose(recorded, corpus.activations.mean(dim=0).float(), atol=1e-4)

    projected = make(Corpus(range(101), massive=[3, 4]), fit, before)
    assert projected.refit.start == "projected"
    refitted = make(Corpus(range(110), massive=[3, 4]), fit, before)
    assert refitted.refit.start != "projected"
    kept, moved = (made.frames[FACTORIZATIONS]["mean_row"].item() for made in (projected, refitted))
    assert kept.equals(before.frames[FACTORIZATIONS]["mean_row"].item())
    assert not moved.equals(kept)


def test_pieces_and_long_matrices_give_the_same_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2 * ROWS_AT_ONCE + 7, 3, generator=generator) + 100
    is_kept = torch.rand(len(rows), generator=generator) < 0.5
    expected = rows[is_kept].double().mean(dim=0).float()
    for pieces in ([rows], rows.split(1000), [rows[:1], rows[1:]]):
        torch.testing.assert_close(mean_row_of(pieces, is_kept), expected, rtol=1e-6, atol=0)


def test_what_cannot_be_averaged_says_why() -> None:
    rows = torch.ones(4, 2)
    with pytest.raises(ValueError, match="none of the 4 tokens is left"):
        mean_row_of([rows], torch.zeros(4, dtype=torch.bool))
    for n_tokens in (3, 5):
        with pytest.raises(ValueError, match=f"4 activation rows found for {n_tokens} tokens"):
            mean_row_of([rows], torch.ones(n_tokens, dtype=torch.bool))
