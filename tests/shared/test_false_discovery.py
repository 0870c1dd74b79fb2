"""q-values against their definition, and what calling by them keeps to."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.shared.false_discovery import q_values, with_q_values

Probability = st.floats(0, 1, allow_nan=False)


def brute_force(p_values: list[float | None]) -> list[float | None]:
    """For each p-value the smallest m p / rank over those at least as large."""
    known = sorted(p for p in p_values if p is not None)
    m = len(known)
    return [
        None
        if p is None
        else min(1.0, *(m * other / (j + 1) for j, other in enumerate(known) if other >= p))
        for p in p_values
    ]


@given(st.lists(st.none() | Probability, max_size=30))
def test_equals_the_definition(p_values: list[float | None]) -> None:
    assert q_values(p_values) == pytest.approx(brute_force(p_values))


@given(st.lists(Probability, min_size=1, max_size=30), st.floats(0.01, 0.3))
def test_calling_by_q_is_the_step_up_procedure(p_values: list[float], level: float) -> None:
    ordered = sorted(p_values)
    m = len(ordered)
    passing = [rank for rank in range(1, m + 1) if ordered[rank - 1] * (m / rank) <= level]
    threshold = ordered[max(passing) - 1] if passing else -1.0
    called = [q is not None and q <= level for q in q_values(p_values)]
    assert called == [p <= threshold for p in p_values]


def test_the_share_of_false_discoveries_stays_below_the_level() -> None:
    generator = np.random.default_rng(0)
    shares = []
    for _ in range(400):
        p = np.concatenate([generator.random(40), generator.random(10) * 0.002])
        called = np.array(q_values(p.tolist())) <= 0.1
        shares.append(called[:40].sum() / max(called.sum(), 1))
    # Of 50 tests 40 are null: the procedure keeps to 0.8 of the level.
    assert np.mean(shares) == pytest.approx(0.08, abs=0.02)


def test_families_keep_apart_and_rows_their_order() -> None:
    frame = pl.DataFrame({"family": ["b", "a", "b", "a"], "p_value": [0.04, None, 0.01, 0.5]})
    found = with_q_values(frame, ["family"])
    assert found.columns == ["family", "p_value", "q_value"]
    assert found["q_value"].to_list() == [0.04, None, 0.02, 0.5]
    assert found["family"].to_list() == frame["family"].to_list()
    again = with_q_values(found, ["family"])
    assert again.equals(found)
    assert with_q_values(frame.clear())["q_value"].to_list() == []


@pytest.mark.parametrize("wrong", [float("nan"), -0.1, 1.1])
def test_what_is_no_probability_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="expected 0 to 1"):
        q_values([0.5, wrong])
