"""The strength search on curves that are known: quadratic, saturating, jumping, not finite."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.steering.strength_search import StrengthSearch

TARGETS = (0.025, 0.05, 0.1, 0.15, 0.25, 0.35, 0.5)


def run(curve: Callable[[float], float], target: float, **options: object) -> StrengthSearch:
    search = StrengthSearch(**({"target": target, "start": 1.0, "maximum": 1e5} | options))
    for _ in range(1000):
        strength = search.proposal()
        if strength is None:
            return search
        assert strength == search.proposal(), "a proposal stands until it is recorded"
        assert search.minimum <= strength <= search.maximum
        assert strength not in search.points, "the same strength was asked for twice"
        search.record(strength, curve(strength))
    raise AssertionError("the search does not end")


@given(
    scale=st.floats(-4, 4),
    power=st.floats(0.7, 4.0),
    start=st.floats(-2, 2),
    target=st.sampled_from(TARGETS),
)
@settings(max_examples=200, deadline=None)
def test_power_laws_are_solved(scale: float, power: float, start: float, target: float) -> None:
    exact = 10**scale * target ** (1 / power)
    search = run(lambda a: (a / 10**scale) ** power, target, start=10**start, minimum=1e-9)
    found = search.result()
    assert found.is_converged and found.reason is None
    assert found.achieved_kl == pytest.approx(target, rel=0.05)
    assert found.strength == pytest.approx(exact, rel=0.08)
    rungs = abs(math.log(exact / 10**start)) / math.log(4)
    assert len(search.points) <= rungs + 8


def test_strengths_below_one_are_reached() -> None:
    found = run(lambda a: 1e4 * a * a, 0.05).result()
    assert found.is_converged and found.strength == pytest.approx(0.00224, rel=0.05)


@pytest.mark.parametrize("start", [0.003, 40.0])
def test_searches_of_one_curve_begin_on_the_same_way(start: float) -> None:
    searches = [run(lambda a: 0.3 * a**2 / (1 + 0.1 * a), t, start=start) for t in TARGETS]
    assert all(search.result().is_converged for search in searches)
    together = set().union(*(search.points for search in searches))
    assert len(together) < 0.5 * sum(len(search.points) for search in searches)


@pytest.mark.parametrize("start", [0.2, 1.0, 3.0])
@pytest.mark.parametrize(("bend", "most"), [(0.0, 8), (0.1, 12), (-0.1, 12)])
def test_near_a_square_a_target_takes_hardly_more_than_a_strength(
    start: float, bend: float, most: int
) -> None:
    searches = [run(lambda a: 0.2 * a**2 * math.exp(-bend * a), t, start=start) for t in TARGETS]
    assert all(search.result().is_converged for search in searches)
    assert len(set().union(*(search.points for search in searches))) <= most


def test_a_saturating_curve_reaches_what_it_can_and_says_so() -> None:
    def curve(a: float) -> float:
        return 0.2 * a * a / (1 + a * a)

    assert run(curve, 0.15).result().is_converged
    missed = run(curve, 0.35).result()
    assert missed.strength is None and not missed.is_converged
    assert missed.achieved_kl == pytest.approx(0.2, rel=1e-3)
    assert "stays below 0.35 nats up to the largest strength 1e+05" in str(missed.reason)
    assert "closest: 0.2 nats" in str(missed.reason)


def test_a_curve_of_zero_ends_at_the_largest_strength() -> None:
    search = run(lambda a: 0.0, 0.1)
    assert "stays below" in str(search.result().reason)
    assert len(search.points) < 11


def test_a_jump_over_the_target_is_not_reached() -> None:
    found = run(lambda a: 0.0 if a < 3 else 5.0, 0.1, max_evaluations=200).result()
    assert not found.is_converged and "jumps over 0.1 nats at strength 3" in str(found.reason)


def test_the_first_crossing_of_a_curve_that_falls_again() -> None:
    found = run(lambda a: a * math.exp(-a), 0.2, start=0.01).result()
    assert found.strength == pytest.approx(0.259, rel=0.08)


def test_too_strong_at_the_smallest_strength() -> None:
    found = run(lambda a: 1e9 * a * a, 0.1).result()
    assert "above 0.1 nats at the smallest strength 0.001" in str(found.reason)


def test_overflow_is_above_every_target() -> None:
    def curve(a: float) -> float:
        return 0.001 * a * a if a < 11 else math.nan

    assert all(run(curve, target).result().is_converged for target in (0.025, 0.05, 0.1))
    assert not run(curve, 0.5).result().is_converged
    assert run(lambda a: math.nan, 0.1).result().achieved_kl is None


def test_the_budget_of_evaluations_holds() -> None:
    search = run(lambda a: 1.0 if a < 77 else 9000.0, 5000.0, max_evaluations=3)
    assert len(search.points) == 3
    assert "stopped after 3 evaluations; closest" in str(search.result().reason)


def test_impossible_ranges_are_errors() -> None:
    with pytest.raises(ValueError, match="make no range"):
        StrengthSearch(target=0.1, start=1.0, minimum=2.0, maximum=1.0)
    with pytest.raises(ValueError, match="must be positive"):
        StrengthSearch(target=0.0, start=1.0)
