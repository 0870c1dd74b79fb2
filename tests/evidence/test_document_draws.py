"""Draws of documents: balanced, of all strengths, and still when a document comes or goes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.evidence.document_draws import DocumentDraws

IDS = [f"document {i}" for i in range(2000)]
DRAWS = DocumentDraws(IDS, IDS, seed=0)
ALL = np.arange(2000)


@given(st.integers(0, 40), st.integers(0, 10_000))
def test_the_strongest_is_shown_and_the_second_held_out(n: int, feature_id: int) -> None:
    is_shown = DRAWS.are_shown(ALL[:n], feature_id)
    assert is_shown[:2].tolist() == [True, False][:n]


def test_halves_are_more_even_than_by_chance_along_the_whole_walk() -> None:
    shown = np.array([DRAWS.are_shown(ALL, feature_id) for feature_id in range(400)])
    assert shown[:, 2:].mean() == pytest.approx(0.5, abs=0.01)
    # Counts over any stretch of n documents: binomial deviation would be sqrt(n) / 2.
    for stretch in (slice(0, 20), slice(300, 320), slice(0, 2000)):
        n = stretch.stop - stretch.start
        assert shown[:, stretch].sum(axis=1).std() < 0.7 * np.sqrt(n) / 2


def test_a_document_that_comes_moves_only_the_few_right_after_it() -> None:
    rng = np.random.default_rng(0)
    moved = []
    for feature_id in range(300):
        walk = rng.permutation(2000)[:60]
        place = int(rng.integers(2, 60))
        before = DRAWS.are_shown(np.delete(walk, place), feature_id)
        after = np.delete(DRAWS.are_shown(walk, feature_id), place)
        changed = np.flatnonzero(before != after)
        assert (changed == place + np.arange(len(changed))).all(), "one run, right after"
        moved.append(len(changed))
    assert 0.3 < np.mean(moved) < 1.2


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(0, 999))
def test_near_duplicates_go_to_one_half_where_the_strongest_of_them_stands(
    families: list[int], feature_id: int
) -> None:
    minhashes = [f"family {family}" for family in families]
    draws = DocumentDraws(IDS[: len(families)], minhashes, seed=0)
    is_shown = draws.are_shown(ALL[: len(families)], feature_id)
    first = sorted({families.index(family) for family in families})
    for family in families:
        halves = {one for one, of in zip(is_shown.tolist(), families, strict=True) if of == family}
        assert len(halves) == 1
    # The others of a family change nothing for any other.
    alone = draws.are_shown(np.array(first, dtype=int), feature_id)
    assert alone.tolist() == is_shown[first].tolist()
    assert alone[:2].tolist() == [True, False][: len(first)]


def shares(n: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).uniform(0.2, 1.0, n) ** 3 * 0.8 + 0.2)[::-1]


@given(st.integers(0, 30), st.integers(0, 8), st.integers(0, 999))
def test_draws_over_strengths_fill_every_band_they_can(n: int, count: int, seed: int) -> None:
    strengths = shares(n, seed)
    places = DRAWS.over_strengths(ALL[:n], strengths, 0.2, count, seed)
    assert sorted(places.tolist()) == list(range(n))
    places = places[:count]
    if count:
        bands = np.minimum((strengths - 0.2) / 0.8 * count, count - 1).astype(int)
        found = set(bands[places].tolist())
        assert found == set(bands.tolist()) or n <= count


def test_draws_over_strengths_are_even_within_a_band() -> None:
    strengths = np.linspace(1.0, 0.21, 12)
    counts = np.zeros(12)
    for feature_id in range(3000):
        counts[DRAWS.over_strengths(ALL[:12], strengths, 0.2, 4, feature_id)[:4]] += 1
    # Four bands of three documents: each is drawn one time in three.
    assert counts == pytest.approx(np.full(12, 1000), abs=110)


def test_a_document_that_comes_changes_one_draw_at_most() -> None:
    changes = []
    for feature_id in range(400):
        walk, place = ALL[:41], 1 + feature_id % 40
        strengths = shares(41, feature_id)
        after = walk[DRAWS.over_strengths(walk, strengths, 0.2, 5, feature_id)[:5]]
        fewer = np.delete(walk, place)
        kept = DRAWS.over_strengths(fewer, np.delete(strengths, place), 0.2, 5, feature_id)
        before = fewer[kept[:5]]
        gone = set(before.tolist()) - set(after.tolist())
        assert set(after.tolist()) - set(before.tolist()) <= {place}
        assert len(gone) <= 1
        changes.append(bool(gone))
    assert np.mean(changes) < 0.25


def test_silent_documents_and_tokens_are_drawn_evenly_and_for_each_feature_anew() -> None:
    draws = [DRAWS.silent(ALL[:50], feature_id)[:10] for feature_id in range(500)]
    counts = np.bincount(np.concatenate(draws), minlength=50)
    assert counts == pytest.approx(np.full(50, 100), abs=40)
    assert len({tuple(draw) for draw in draws}) == 500
    tokens = [DRAWS.token(3, np.arange(5, 15), feature_id) for feature_id in range(2000)]
    assert np.bincount(tokens, minlength=10) == pytest.approx(np.full(10, 200), abs=60)
