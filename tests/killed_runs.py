"""A study killed at random points of its way, and what must hold when it was run to its end.

Points are drawn over marks (files that the run writes, calls that it sends to the LLM), not over
time, so they fall into all stages on machines of any speed; a random delay moves them between the
marks.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from counting_llm import kept_answers, number_of
from lake_contents import contents, differing_columns
from misbehaving_endpoint import Endpoint
from separate_process import SeparateProcess

LONGEST_DELAY_SECONDS = 1.0
# Answers that may be on their way when a run is killed: llm.concurrency.
CALLS_AT_ONCE = 8


@dataclass(frozen=True)
class Whole:
    """A run that was never killed: its content by table and column, and its marks."""

    contents: dict[str, dict[str, str]]
    n_marks: int


@dataclass(frozen=True)
class Kill:
    """One kill: share of the marks, and how many requests were sent and answers kept by then."""

    share: float
    n_requests: int
    kept: set[int]


def run_whole(place: SeparateProcess, study: str, llm: Endpoint) -> Whole:
    """The study materialized without a kill."""
    n_before = len(llm.requests)
    place.run(study)
    with place.lake() as lake:
        return Whole(contents(lake), place.n_files() + len(llm.requests) - n_before)


def kill_points(n: int, rng: random.Random) -> list[float]:
    """`n` shares of the way, in order: one drawn from each of `n` equal parts, but for the end."""
    return [0.97 * (part + rng.random()) / n for part in range(n)]


def run_killed(
    place: SeparateProcess,
    study: str,
    llm: Endpoint,
    whole: Whole,
    shares: list[float],
    rng: random.Random,
) -> list[Kill]:
    """Kills the study at each of `shares` of the way, one run after the other, then ends it."""
    n_before = len(llm.requests)
    kills = []
    for share in shares:
        wanted = share * whole.n_marks

        def is_reached(wanted: float = wanted) -> bool:
            return place.n_files() + len(llm.requests) - n_before >= wanted

        delay = rng.uniform(0, LONGEST_DELAY_SECONDS)
        if place.run_and_kill(study, is_reached, delay):
            kills.append(Kill(share, len(llm.requests), kept_answers(place.lake_root)))
    place.run(study)
    return kills


def assert_as_never_killed(
    place: SeparateProcess, whole: Whole, llm: Endpoint, kills: list[Kill]
) -> None:
    """Same content, no kept answer asked for again, no run left open, all of it told to Dagster."""
    with place.lake() as lake:
        assert differing_columns(contents(lake), whole.contents) == {}
    numbers = [number_of(body) for body in llm.requests]
    for kill in kills:
        assert not kill.kept & set(numbers[kill.n_requests :]), kill.share
    assert place.unfinished_runs() == []
    assert place.unreported() == []
    assert list((place.lake_root / "scratch").iterdir()) == []


def n_repeated(llm: Endpoint, first: int) -> int:
    """Requests from number `first` on that had been sent before, since `first`."""
    numbers = [number_of(body) for body in llm.requests[first:]]
    return len(numbers) - len(set(numbers))
