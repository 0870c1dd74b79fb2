"""A budget lets calls through until one of its limits is reached, from any number of threads."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from resources.call_budget import CallBudget


def test_without_limits_every_call_goes_through() -> None:
    budget = CallBudget.from_tag(None)
    budget.spend(calls=10**6, usd=10.0**6)
    assert budget.take_call() and budget.spent_because is None


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (CallBudget(calls=0), "LLM calls"),
        (CallBudget(usd=0.0), "USD"),
        (CallBudget(deadline=1.0), "minutes"),
    ],
)
def test_each_limit_stops_and_is_named(budget: CallBudget, reason: str) -> None:
    assert reason in (budget.spent_because or "")
    assert not budget.take_call()


def test_a_limit_that_is_not_reached_lets_calls_through() -> None:
    budget = CallBudget(calls=2, usd=0.1, deadline=time.time() + 3600)
    assert [budget.take_call() for _ in range(3)] == [True, True, False]
    budget = CallBudget(usd=0.1)
    budget.spend(usd=0.3)
    assert not budget.take_call()


def test_no_call_is_taken_twice_by_threads() -> None:
    budget = CallBudget(calls=500)
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: budget.take_call(), range(2000)))
    assert sum(taken) == 500


def test_a_budget_travels_as_text_with_what_is_left() -> None:
    end = time.time() + 3600
    budget = CallBudget(calls=5, usd=1.0, deadline=end)
    budget.take_call()
    budget.note_price(0.25)
    budget.spend(calls=1, usd=0.25)
    there = CallBudget.from_tag(budget.to_tag())
    assert (there.calls, there.usd, there.deadline) == (3, 0.5, end)


def test_what_was_taken_is_counted_and_an_unknown_price_stays_unknown() -> None:
    budget = CallBudget(calls=2, usd=1.0)
    budget.spend(calls=1, usd=0.5)
    assert budget.take_call() and not budget.take_call()
    budget.note_price(0.25)
    assert (budget.n_taken, budget.usd_taken, budget.usd) == (1, 0.25, 0.25)
    budget.note_price(None)
    budget.note_price(0.25)
    assert budget.usd_taken is None and budget.usd == 0.0
