"""The strength search on curves that are known: quadratic, saturating, jumping, not finite."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.steering.strength_search import StrengthSearch

TARGETS = (0.025, 0.05, 0.1, 0.15, 0.25, 0.35, 0.5)


def run(curve: Callable[[float], float], **options: object) -> StrengthSearch:
    search = StrengthSearch(**({"targets": TARGETS, "start": 1.0, "maximum": 1e5} | options))
    for _ in range(1000):
        proposals = search.proposals()
        if not proposals:
            return search
        assert len(set(proposals)) == len(proposals)
        for strength in proposals:
            assert search.minimum <= strength <= search.maximum
            assert strength not in search.points, "the same strength was asked for twice"
            search.record(strength, curve(strength))
    raise AssertionError("the search does not end")


@given(
    scale=st.floats(-4, 4),
    power=st.floats(0.7, 4.0),
    start=st.floats(-2, 2),
)
@settings(max_examples=60, deadline=None)
def test_power_laws_are_solved_for_every_target(scale: float, power: float, start: float) -> None:
    exact = {t: 10**scale * t ** (1 / power) for t in TARGETS}
    search = run(lambda a: (a / 10**scale) ** power, start=10**start, minimum=1e-9)
    for target in TARGETS:
        found = search.result(target)
        assert found.is_converged and found.reason is None
        assert found.achieved_kl == pytest.approx(target, rel=0.05)
        assert found.strength == pytest.approx(exact[target], rel=0.08)
    assert len(search.points) <= 48


def test_strengths_below_one_are_reached() -> None:
    found = run(lambda a: 1e4 * a * a).result(0.05)
    assert found.is_converged and found.strength == pytest.approx(0.00224, rel=0.05)


def test_targets_share_their_evaluations() -> None:
    together = run(lambda a: 0.3 * a**2 / (1 + 0.1 * a))
    apart = [run(lambda a: 0.3 * a**2 / (1 + 0.1 * a), targets=(t,)) for t in TARGETS]
    assert all(together.result(t).is_converged for t in TARGETS)
    assert len(together.points) < sum(len(search.points) for search in apart)


def test_a_saturating_curve_reaches_what_it_can_and_says_so() -> None:
    search = run(lambda a: 0.2 * a * a / (1 + a * a))
    assert search.result(0.15).is_converged
    missed = search.result(0.35)
    assert missed.strength is None and not missed.is_converged
    assert missed.achieved_kl == pytest.approx(0.2, rel=1e-3)
    assert "stays below 0.35 nats up to the largest strength 1e+05" in str(missed.reason)
    assert "closest: 0.2 nats" in str(missed.reason)


def test_a_curve_of_zero_ends_at_the_largest_strength() -> None:
    search = run(lambda a: 0.0)
    assert all("stays below" in str(search.result(t).reason) for t in TARGETS)
    assert len(search.points) < 10


def test_a_jump_over_the_target_is_not_reached() -> None:
    found = run(lambda a: 0.0 if a < 3 else 5.0, targets=(0.1,), max_evaluations=200).result(0.1)
    assert not found.is_converged and "jumps over 0.1 nats at strength 3" in str(found.reason)


def test_the_first_crossing_of_a_curve_that_falls_again() -> None:
    found = run(lambda a: a * math.exp(-a), targets=(0.2,), start=0.01).result(0.2)
    assert found.strength == pytest.approx(0.259, rel=0.08)


def test_too_strong_at_the_smallest_strength() -> None:
    found = run(lambda a: 1e9 * a * a, targets=(0.1,)).result(0.1)
    assert "above 0.1 nats at the smallest strength 0.001" in str(found.reason)


def test_overflow_is_above_every_target() -> None:
    search = run(lambda a: 0.001 * a * a if a < 11 else math.nan, start=1.0)
    assert all(search.result(t).is_converged for t in (0.025, 0.05, 0.1))
    assert not search.result(0.5).is_converged
    never = run(lambda a: math.nan, targets=(0.1,))
    assert never.result(0.1).achieved_kl is None


def test_the_budget_of_evaluations_holds() -> None:
    search = run(lambda a: 0.3 * a**2, max_evaluations=3)
    assert len(search.points) <= 3
    assert any("stopped after" in str(search.result(t).reason) for t in TARGETS)


def test_impossible_ranges_are_errors() -> None:
    with pytest.raises(ValueError, match="make no range"):
        StrengthSearch(targets=(0.1,), start=1.0, minimum=2.0, maximum=1.0)
    with pytest.raises(ValueError, match="must be positive"):
        StrengthSearch(targets=(0.0,), start=1.0)
