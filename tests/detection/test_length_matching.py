"""Texts matched in length: brute force, and what a maximum over tokens makes of other choices."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from assets.detection.concept_statistics import auroc_matrix
from assets.detection.length_matching import matched_texts
from assets.detection.neutral_sentences import NEUTRAL_SENTENCES
from assets.detection.text_scores import max_cosine_scores
from assets.shared.hash_order import mixed, text_hashes

LENGTHS = np.array([len(text.split()) for text in NEUTRAL_SENTENCES])
HASHES = text_hashes(NEUTRAL_SENTENCES, 0)
D, N_FEATURES = 16, 300


def random_scores(lengths: np.ndarray, seed: int) -> np.ndarray:
    """Scores of texts of random tokens for random directions, [n_texts, N_FEATURES]."""
    generator = torch.Generator().manual_seed(seed)
    number = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths))
    tokens = torch.randn(len(number), D, generator=generator)
    directions = torch.randn(N_FEATURES, D, generator=generator)
    return max_cosine_scores([(tokens, number)], directions, len(lengths))


def mean_auroc(activating: list[int], chosen: list[list[int]], seed: int) -> float:
    """Of random directions, feature j with the neutral texts chosen[j]."""
    neutral = random_scores(LENGTHS, seed)
    scores = random_scores(np.array(activating), seed + 1)
    is_positive = np.arange(2 * len(activating)) < len(activating)
    found = [
        auroc_matrix(
            np.concatenate([scores[:, j], neutral[texts, j]])[:, None], is_positive[:, None]
        ).item()
        for j, texts in enumerate(chosen)
    ]
    return float(np.mean(found))


def matched(activating: list[int]) -> list[list[int]]:
    return [
        matched_texts(activating, len(activating), LENGTHS, mixed(HASHES, j))
        for j in range(N_FEATURES)
    ]


def drawn_from_short(n: int) -> list[list[int]]:
    """As it was before 0.7.0: drawn without a look at lengths, of sentences of about 10 words."""
    short = np.flatnonzero((LENGTHS >= 7) & (LENGTHS <= 12))
    generator = np.random.default_rng(0)
    return [generator.permutation(short)[:n].tolist() for _ in range(N_FEATURES)]


@pytest.mark.parametrize(
    "activating",
    [[5, 5, 6, 7, 7], [17, 18, 19, 20, 21], [29, 30, 32, 34, 37], [5, 11, 19, 26, 36]],
)
def test_random_directions_are_at_chance_whatever_the_lengths(activating: list[int]) -> None:
    aurocs = [mean_auroc(activating, matched(activating), seed) for seed in range(20)]
    noise = float(np.std(aurocs)) / np.sqrt(len(aurocs))
    assert noise < 0.005
    assert np.mean(aurocs) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("activating", "is_biased"),
    [
        ([5, 5, 6, 7, 7], lambda auroc: auroc < 0.42),
        ([17, 18, 19, 20, 21], lambda auroc: auroc > 0.58),
        ([29, 30, 32, 34, 37], lambda auroc: auroc > 0.65),
    ],
)
def test_control_one_choice_for_all_lengths_is_biased(activating: list[int], is_biased) -> None:
    chosen = drawn_from_short(len(activating))
    assert is_biased(np.mean([mean_auroc(activating, chosen, seed) for seed in range(20)]))


@pytest.mark.parametrize("seed", range(5))
def test_no_choice_of_different_texts_is_nearer(seed: int) -> None:
    generator = np.random.default_rng(seed)
    lengths, wanted = generator.integers(4, 30, size=8), generator.integers(4, 40, size=4).tolist()
    chosen = matched_texts(wanted, 4, lengths, mixed(text_hashes("abcdefgh"), seed))
    assert len(set(chosen)) == 4
    nearest = min(
        int(np.abs(lengths[list(some)] - np.sort(wanted)).sum())
        for some in permutations(range(8), 4)
    )
    assert int(np.abs(lengths[chosen] - np.sort(wanted)).sum()) == nearest


def test_equal_lengths_are_chosen_by_hash_and_each_alike_often() -> None:
    lengths, names = np.full(10, 12), text_hashes("abcdefghij")
    drawn = [matched_texts([12, 12], 2, lengths, mixed(names, j)) for j in range(1000)]
    assert drawn[3] == matched_texts([12, 12], 2, lengths, mixed(names, 3))
    times = np.bincount(np.concatenate(drawn), minlength=10)
    assert times.min() > 140 and times.max() < 260


def test_another_number_of_texts_is_spread_over_the_wanted_lengths() -> None:
    lengths, hashes = np.arange(50), text_hashes(map(str, range(50)))
    assert matched_texts([30, 10, 20, 40, 5], 3, lengths, hashes) == [5, 20, 40]
    assert sorted(matched_texts([10, 30], 4, lengths, hashes)) in (
        [9, 10, 29, 30],
        [9, 10, 30, 31],
        [10, 11, 29, 30],
        [10, 11, 30, 31],
    )


def test_without_a_length_to_match_some_are_drawn_and_too_many_are_refused() -> None:
    assert len(set(matched_texts([], 5, LENGTHS, HASHES))) == 5
    with pytest.raises(ValueError, match="1000 texts were asked for"):
        matched_texts([7], 1000, LENGTHS, HASHES)
