"""The recovered share, its interval, and when there is none."""

from __future__ import annotations

import numpy as np
import pytest

from assets.faithfulness.feature_rows import ratio_standard_error
from assets.faithfulness.recovered import cross_entropy_recovered

RNG = np.random.default_rng(0)
BASE = RNG.uniform(10, 20, 40)
ZERO = BASE + RNG.uniform(1, 9, 40)


def recovered(replaced: np.ndarray, zero: np.ndarray = ZERO, n: int = 40):
    return cross_entropy_recovered(BASE[:n], zero[:n], replaced[:n])


def test_the_scale_runs_from_zero_to_one_and_beyond() -> None:
    assert (recovered(BASE).value, recovered(ZERO).value) == (1.0, 0.0)
    assert recovered(0.25 * BASE + 0.75 * ZERO).value == pytest.approx(0.25)
    assert recovered(ZERO + 5).value < 0 and recovered(BASE - 1).value > 1


@pytest.mark.parametrize("n", [8, 20, 64])
def test_the_interval_holds_the_truth_at_few_documents(n: int) -> None:
    """Of lognormal losses too: at 8, 20 and 64 documents in 96, 97 and 96 %."""
    generator = np.random.default_rng(n)
    for draw in (lambda: generator.normal(1, 0.4, n), lambda: generator.lognormal(0, 0.8, n)):
        hits = []
        for _ in range(800):
            worth = draw()
            kept = 0.7 * worth + generator.normal(0, 0.2, n)
            found = cross_entropy_recovered(np.zeros(n), worth, worth - kept)
            if found.low is not None:
                hits.append(found.low <= 0.7 <= found.high)
        assert len(hits) > 700 and 0.92 <= np.mean(hits) <= 0.99


def test_the_interval_holds_the_value_and_narrows_with_documents() -> None:
    replaced = BASE + RNG.uniform(0, 3, 40)
    one = recovered(replaced)
    assert one.low < one.value < one.high
    four_times = cross_entropy_recovered(np.tile(BASE, 4), np.tile(ZERO, 4), np.tile(replaced, 4))
    assert four_times.value == pytest.approx(one.value)
    narrower = (four_times.high - four_times.low) / (one.high - one.low)
    assert narrower == pytest.approx(0.5, rel=0.05)


def test_where_zeroing_costs_nothing_there_is_no_share() -> None:
    result = recovered(BASE, zero=BASE - 1)
    assert result.value is None and "does not raise" in str(result.reason)
    assert recovered(BASE, zero=BASE).value is None


def test_an_interval_that_cannot_be_had_says_why() -> None:
    one = recovered(BASE, n=1)
    assert one.value == 1.0 and one.low is None and "one document" in str(one.reason)
    zero = BASE + np.where(np.arange(40) < 3, 30.0, -1.0)  # three documents carry it all
    unsure = recovered(BASE + 0.1, zero=zero)
    assert unsure.value is not None and unsure.low is None and "holds 0" in str(unsure.reason)
    alike = recovered(BASE)
    assert alike.low is None and "the same share" in str(alike.reason)


def test_the_ratios_standard_error_is_that_of_repeated_samples() -> None:
    counts = RNG.integers(5, 15, size=(4000, 60)).astype(float)
    sums = 0.3 * counts + RNG.normal(0, 2, counts.shape)
    spread = (sums.sum(axis=1) / counts.sum(axis=1)).std()
    estimates = [ratio_standard_error(s, c) for s, c in zip(sums[:200], counts[:200], strict=True)]
    assert np.mean(estimates) == pytest.approx(spread, rel=0.1)  # pyright: ignore
    assert ratio_standard_error(sums[0, :1], counts[0, :1]) is None
