"""The recovered share, its interval, and when there is none."""

from __future__ import annotations

import numpy as np
import pytest

from assets.faithfulness.feature_rows import ratio_standard_error
from assets.faithfulness.recovered import cross_entropy_recovered

RNG = np.random.default_rng(0)
BASE = RNG.uniform(10, 20, 40)
ZERO = BASE + RNG.uniform(1, 9, 40)


def recovered(replaced: np.ndarray, zero: np.ndarray = ZERO, n: int = 40, seed: int = 0):
    return cross_entropy_recovered(BASE[:n], zero[:n], replaced[:n], n_bootstrap=2000, seed=seed)


def test_the_scale_runs_from_zero_to_one_and_beyond() -> None:
    assert recovered(BASE).value == recovered(BASE).low == recovered(BASE).high == 1.0
    assert recovered(ZERO).value == recovered(ZERO).low == recovered(ZERO).high == 0.0
    assert recovered(0.25 * BASE + 0.75 * ZERO).value == pytest.approx(0.25)
    assert recovered(ZERO + 5).value < 0 and recovered(BASE - 1).value > 1


def test_the_interval_holds_the_value_and_follows_the_seed() -> None:
    replaced = BASE + RNG.uniform(0, 3, 40)
    one, again, other = (recovered(replaced, seed=seed) for seed in (0, 0, 1))
    assert one == again != other
    assert one.low < one.value < one.high
    four_times = cross_entropy_recovered(
        np.tile(BASE, 4), np.tile(ZERO, 4), np.tile(replaced, 4), n_bootstrap=2000, seed=0
    )
    assert four_times.value == pytest.approx(one.value)
    narrower = (four_times.high - four_times.low) / (one.high - one.low)
    assert narrower == pytest.approx(0.5, rel=0.15)


def test_where_zeroing_costs_nothing_there_is_no_share() -> None:
    result = recovered(BASE, zero=BASE - 1)
    assert result.value is None and "does not raise" in str(result.reason)
    assert recovered(BASE, zero=BASE).value is None


def test_an_interval_that_cannot_be_had_says_why() -> None:
    one = recovered(BASE, n=1)
    assert one.value == 1.0 and one.low is None and "one document" in str(one.reason)
    zero = BASE + np.where(np.arange(40) < 3, 30.0, -1.0)  # three documents carry it all
    assert recovered(BASE, zero=zero).low is None
    assert "resamples" in str(recovered(BASE, zero=zero).reason)


def test_a_rare_worthless_resample_widens_the_interval_but_leaves_it() -> None:
    zero = BASE + np.where(np.arange(40) < 12, 3.0, -0.5)
    drawn = np.random.default_rng(0).integers(0, 40, size=(2000, 40))
    share = ((zero - BASE)[drawn].sum(axis=1) <= 0).mean()
    assert 0 < share < 0.025
    result = recovered(BASE, zero=zero)
    assert result.value == result.low == result.high == 1.0
    some = recovered(BASE + 0.3, zero=zero)
    assert some.low is not None and some.low < some.value < some.high


def test_the_ratios_standard_error_is_that_of_repeated_samples() -> None:
    counts = RNG.integers(5, 15, size=(4000, 60)).astype(float)
    sums = 0.3 * counts + RNG.normal(0, 2, counts.shape)
    spread = (sums.sum(axis=1) / counts.sum(axis=1)).std()
    estimates = [ratio_standard_error(s, c) for s, c in zip(sums[:200], counts[:200], strict=True)]
    assert np.mean(estimates) == pytest.approx(spread, rel=0.1)  # pyright: ignore
    assert ratio_standard_error(sums[0, :1], counts[0, :1]) is None
