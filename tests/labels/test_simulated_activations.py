"""The correlation of ratings with coefficients, and its interval, against numpy and the truth."""

from __future__ import annotations

import numpy as np
import pytest

from assets.labels.simulated_activations import Correlation, rating_correlation


def planted(
    generator: np.random.Generator, n_contexts: int, n_words: int, shared: float = 0.0
) -> tuple[np.ndarray, np.ndarray, list[tuple[str, str]]]:
    """Words whose coefficient and rating have correlation 0.6; `shared` of it within contexts."""
    size = (2 * n_contexts, n_words)
    context = generator.normal(size=(2, size[0], 1)) * np.sqrt(shared)
    word = generator.normal(size=(2, *size)) * np.sqrt(1 - shared)
    x, other = context + word
    y = 0.6 * x + 0.8 * other
    names = [("positive", f"p{i}") for i in range(n_contexts)]
    names += [("random", f"n{i}") for i in range(n_contexts)]
    return x.ravel(), y.ravel() + 4, [name for name in names for _ in range(n_words)]


def test_it_is_numpys_and_its_interval_that_of_words_resampled_one_by_one() -> None:
    generator = np.random.default_rng(0)
    true, ratings, contexts = planted(generator, 6, 5)
    # Far from 0, where sums of squares would lose digits.
    found = rating_correlation(
        1e6 + true, ratings, contexts, n_bootstrap=4000, confidence=0.9, seed=3
    )
    assert found.r == pytest.approx(np.corrcoef(true, ratings)[0, 1]) and found.interval is not None
    names = list(dict.fromkeys(contexts))
    words = {name: [i for i, one in enumerate(contexts) if one == name] for name in names}
    slow = []
    for _ in range(4000):
        drawn = [*generator.integers(0, 6, 6), *generator.integers(6, 12, 6)]
        rows = [row for i in drawn for row in words[names[i]]]
        slow.append(np.corrcoef(true[rows], ratings[rows])[0, 1])
    assert found.interval == pytest.approx(tuple(np.quantile(slow, [0.05, 0.95])), abs=0.03)


@pytest.mark.parametrize("shared", [0.0, 0.8])
def test_the_interval_covers_the_truth_where_words_of_a_context_are_alike(shared: float) -> None:
    generator, covered, too_sure = np.random.default_rng(0), [], []
    for _ in range(200):
        true, ratings, contexts = planted(generator, 20, 8, shared)
        by_word = [(sort, f"{i}") for i, (sort, _) in enumerate(contexts)]
        for names, hits in ((contexts, covered), (by_word, too_sure)):
            _, interval, _ = rating_correlation(
                true, ratings, names, n_bootstrap=200, confidence=0.95, seed=1
            )
            assert interval is not None
            hits.append(interval[0] <= 0.6 <= interval[1])
    assert 0.87 <= np.mean(covered) <= 0.99
    # The control: words drawn one by one are too sure of themselves where contexts matter.
    assert (np.mean(too_sure) < 0.75) == (shared > 0)


@pytest.mark.parametrize(
    ("true", "ratings", "reason"),
    [
        ([0.0, 0.0, 0.0], [1.0, 2.0, 3.0], "all 3 coefficients are equal"),
        ([1e-8, 0.0, 2e-8], [2.0, 2.0 + 1e-10, 2.0], "all 3 ratings are equal"),
        ([1e-8, 0.0, 2e-8], [0.0, 1e-9, 0.0], "all 3 ratings are equal"),
    ],
)
def test_where_nothing_varies_there_is_a_reason(
    true: list[float], ratings: list[float], reason: str
) -> None:
    found = rating_correlation(
        np.array(true),
        np.array(ratings),
        [("positive", "a"), ("positive", "b"), ("random", "c")],
        n_bootstrap=10,
        confidence=0.95,
        seed=0,
    )
    assert found == Correlation(reason=f"{reason}: a correlation is undefined")


def test_small_coefficients_are_no_constant_ones() -> None:
    found = rating_correlation(
        np.array([1e-8, 0.0, 2e-8]),
        np.array([2.0, 1.0, 3.0]),
        [("positive", "a"), ("positive", "b"), ("random", "c")],
        n_bootstrap=0,
        confidence=0.95,
        seed=0,
    )
    assert found.r == pytest.approx(1.0) and found.interval is None and found.reason is None
