"""The correlation of ratings with coefficients, and its interval, against numpy and the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student

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


def test_it_is_numpys_and_its_interval_that_of_contexts_left_out_one_by_one() -> None:
    generator = np.random.default_rng(0)
    true, ratings, contexts = planted(generator, 6, 5)
    # Four negatives: the smaller sort gives the degrees of freedom.
    few = [i for i, (_, name) in enumerate(contexts) if name not in ("n4", "n5")]
    true, ratings, contexts = true[few], ratings[few], [contexts[i] for i in few]
    # Far from 0, where sums of squares would lose digits.
    found = rating_correlation(1e6 + true, ratings, contexts, confidence=0.9)
    r = np.corrcoef(true, ratings)[0, 1]
    assert found.r == pytest.approx(r) and found.interval is not None
    variance = 0.0
    for sort, n in (("positive", 6), ("random", 4)):
        names = {name for name in contexts if name[0] == sort}
        kept = [[i for i, one in enumerate(contexts) if one != name] for name in sorted(names)]
        z = np.array([np.corrcoef(true[rows], ratings[rows])[0, 1] for rows in kept])
        variance += (n - 1) * float(np.arctanh(z).var())
    half = student.ppf(0.95, 3) * np.sqrt(variance)
    expected = np.tanh([np.arctanh(r) - half, np.arctanh(r) + half])
    assert found.interval == pytest.approx(tuple(expected))
    narrow, wide = (
        rating_correlation(1e6 + true, ratings, contexts, confidence=confidence).interval
        for confidence in (0.8, 0.95)
    )
    half *= student.ppf(0.9, 3) / student.ppf(0.95, 3)
    expected = np.tanh([np.arctanh(r) - half, np.arctanh(r) + half])
    assert narrow == pytest.approx(tuple(expected))
    assert narrow is not None and wide is not None
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


@pytest.mark.parametrize("n_contexts", [4, 10, 20])
@pytest.mark.parametrize("shared", [0.0, 0.8])
def test_the_interval_covers_the_truth_where_words_of_a_context_are_alike(
    shared: float, n_contexts: int
) -> None:
    generator, covered, too_sure = np.random.default_rng(0), [], []
    for _ in range(300):
        true, ratings, contexts = planted(generator, n_contexts, 8, shared)
        by_word = [(sort, f"{i}") for i, (sort, _) in enumerate(contexts)]
        for names, hits in ((contexts, covered), (by_word, too_sure)):
            _, interval, _ = rating_correlation(true, ratings, names, confidence=0.95)
            assert interval is not None and interval[0] < interval[1]
            hits.append(interval[0] <= 0.6 <= interval[1])
    assert 0.92 <= np.mean(covered) <= 0.985
    # The control: words left out one by one are too sure of themselves where contexts matter.
    assert (np.mean(too_sure) < 0.8) == (shared > 0)


@pytest.mark.parametrize("n_contexts", [4, 10])
def test_of_sparse_skewed_coefficients_the_interval_covers_nearly_as_often(n_contexts: int) -> None:
    """Negatives are all 0, and held-out contexts differ in strength: 89 % in place of 95."""

    def drawn(n: int) -> tuple[np.ndarray, np.ndarray]:
        of_context = generator.gamma(4, 0.25, (n, 1)) * np.array([[1.0], [0.0]])[:, None]
        true = of_context.reshape(2 * n, 1) * generator.gamma(3, 0.33, (2 * n, 20))
        true *= generator.random(true.shape) < 0.2
        ratings = 1.2 * true + generator.normal(0, 0.3, (2 * n, 1))
        return true, ratings + generator.normal(0, 0.6, true.shape)

    generator, covered = np.random.default_rng(1), []
    every, rated = drawn(4000)
    truth = np.corrcoef(every.ravel(), rated.ravel())[0, 1]
    names = [(sort, str(i)) for sort in ("positive", "random") for i in range(n_contexts)]
    contexts = [name for name in names for _ in range(20)]
    for _ in range(500):
        true, ratings = (values.ravel() for values in drawn(n_contexts))
        interval = rating_correlation(true, ratings, contexts, confidence=0.95).interval
        assert interval is not None
        covered.append(interval[0] <= truth <= interval[1])
    assert 0.88 <= np.mean(covered) <= 0.95


def test_one_context_of_a_sort_or_a_perfect_simulator_has_no_interval() -> None:
    generator = np.random.default_rng(0)
    true, ratings, contexts = planted(generator, 3, 5)
    few = [i for i, (_, name) in enumerate(contexts) if name not in ("n1", "n2")]
    of_few = rating_correlation(true[few], ratings[few], [contexts[i] for i in few], confidence=0.9)
    assert of_few.r is not None and of_few.interval is None
    perfect = rating_correlation(true, 3 * true + 1, contexts, confidence=0.9)
    assert perfect.r == pytest.approx(1.0) and perfect.interval is None


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
        confidence=0.95,
    )
    assert found == Correlation(reason=f"{reason}: a correlation is undefined")


def test_small_coefficients_are_no_constant_ones() -> None:
    found = rating_correlation(
        np.array([1e-8, 0.0, 2e-8]),
        np.array([2.0, 1.0, 3.0]),
        [("positive", "a"), ("positive", "b"), ("random", "c")],
        confidence=0.95,
    )
    assert found.r == pytest.approx(1.0) and found.interval is None and found.reason is None
