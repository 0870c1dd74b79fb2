"""Words as they are compared, and min-hashes against brute force and the theorem."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.shared.word_runs import RUN, minhashes, normalised_words, word_runs

VOCABULARY = [f"w{letter}{other}" for letter in "abcdefghij" for other in "klmnopqrst"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't — PANIC, now!", ("don", "t", "panic", "now")),
        ("Straße snake_case word3", ("strasse", "snake", "case", "word3")),
        (
            "On 2024-01-02 at 10:30 we sold 1,200.5 kg",
            ("on", "0", "at", "0", "we", "sold", "0", "kg"),
        ),
        # Of numbers, the numbers are the text.
        ("12 + 30 = 42", ("12", "30", "42")),
        ("ｆｕｌｌ width", ("full", "width")),
        ("北京 is", ("北", "京", "is")),
        ("!? ...", ("!?...",)),
        ("", ("",)),
    ],
)
def test_words_are_told_apart_without_case_punctuation_and_values(
    text: str, words: tuple[str, ...]
) -> None:
    assert normalised_words(text) == words


def test_runs_lie_inside_the_words() -> None:
    assert word_runs("abcd", 3) == {("a", "b", "c"), ("b", "c", "d")}
    assert word_runs("ab", 3) == set()


@given(st.lists(st.text("ab cd.", max_size=40), max_size=12))
def test_a_min_hash_follows_from_its_own_text_alone(texts: list[str]) -> None:
    together = minhashes(texts)
    assert together == [minhashes([text])[0] for text in texts]
    for one, first in zip(texts, together, strict=True):
        for other, second in zip(texts, together, strict=True):
            if normalised_words(one) == normalised_words(other):
                assert first == second
            elif first == second:
                runs = [word_runs(normalised_words(text), RUN) for text in (one, other)]
                assert runs[0] & runs[1]


def test_batches_do_not_matter() -> None:
    texts = [f"the text of number {i} w{i} and more" for i in range(5000)]
    assert minhashes(texts)[4090:4105] == minhashes(texts[4090:4105])


@pytest.mark.parametrize("n_changed", [1, 4, 12])
def test_texts_share_a_min_hash_as_often_as_they_share_runs(n_changed: int) -> None:
    rng = np.random.default_rng(n_changed)
    pairs, shared = [], []
    for _ in range(1500):
        words = rng.choice(VOCABULARY, 30).tolist()
        changed = words[:-n_changed] + rng.choice(VOCABULARY, n_changed).tolist()
        one, other = word_runs(words, RUN), word_runs(changed, RUN)
        shared.append(len(one & other) / len(one | other))
        pairs += [" ".join(words), " ".join(changed)]
    found = minhashes(pairs)
    are_equal = [a == b for a, b in zip(found[::2], found[1::2], strict=True)]
    assert np.mean(are_equal) == pytest.approx(np.mean(shared), abs=0.035)


def test_min_hashes_are_written_down() -> None:
    # Halves of a lake follow from them: other ones would part other documents.
    assert minhashes(["The quick brown fox jumps.", "A fox"]) == [
        "025cd30a36260501",
        "254e3481d3f50768",
    ]
