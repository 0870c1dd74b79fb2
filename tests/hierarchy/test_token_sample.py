"""The tokens a tree is tuned on: all that are kept where they fit, else a seeded sample of them."""

from __future__ import annotations

import pytest
import torch

from assets.hierarchy.token_sample import BYTES_PER_GIB, sampled_rows

WIDTH = 64
IS_KEPT = torch.arange(1000) % 10 != 0  # 900 rows


def gib_of(n_rows: int) -> float:
    return 4 * n_rows * WIDTH * 4 / BYTES_PER_GIB


@pytest.mark.parametrize("n_fitting", [900, 5000])
def test_all_kept_rows_are_taken_where_they_fit(n_fitting: int) -> None:
    chosen = sampled_rows(IS_KEPT, WIDTH, gib_of(n_fitting), n_least=1, seed=0)
    assert chosen.equal(IS_KEPT)


@pytest.mark.parametrize("n_fitting", [1, 300, 899])
def test_a_sample_is_as_large_as_fits_and_of_kept_rows_only(n_fitting: int) -> None:
    chosen = sampled_rows(IS_KEPT, WIDTH, gib_of(n_fitting), n_least=1, seed=0)
    assert int(chosen.sum()) == n_fitting
    assert not (chosen & ~IS_KEPT).any()


def test_a_seed_gives_one_sample_and_samples_reach_every_row() -> None:
    samples = [
        sampled_rows(IS_KEPT, WIDTH, gib_of(300), n_least=1, seed=seed) for seed in range(40)
    ]
    assert samples[3].equal(sampled_rows(IS_KEPT, WIDTH, gib_of(300), n_least=1, seed=3))
    assert not samples[0].equal(samples[1])
    # A row is missed by all 40 with probability (2/3)^40, some 1e-7.
    assert torch.stack(samples).any(dim=0).equal(IS_KEPT)


def test_a_sample_has_no_fewer_rows_than_the_least_as_far_as_there_are() -> None:
    assert int(sampled_rows(IS_KEPT, WIDTH, 0.0, n_least=24, seed=0).sum()) == 24
    assert sampled_rows(IS_KEPT, WIDTH, 0.0, n_least=2000, seed=0).equal(IS_KEPT)
