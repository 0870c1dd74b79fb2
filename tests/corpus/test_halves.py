"""The halves of a corpus: balanced, seeded, and nearly the same when a document comes or goes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.corpus.halves import split_in_halves

IDS = [f"document {i}" for i in range(301)]
CONCEPTS = [None if i % 7 == 6 else f"concept {i % 7}" for i in range(301)]


def chosen(ids: list[str], concepts: list[str | None], seed: int = 0) -> set[str]:
    halves = split_in_halves(ids, concepts, seed)
    return {name for name, is_chosen in zip(ids, halves, strict=True) if is_chosen}


@given(st.lists(st.sampled_from(["a", "b", None]), max_size=30), st.integers(0, 99))
def test_every_concept_is_halved_exactly(concepts: list[str | None], seed: int) -> None:
    halves = split_in_halves(IDS[: len(concepts)], concepts, seed)
    n_chosen = Counter(c for c, is_chosen in zip(concepts, halves, strict=True) if is_chosen)
    assert all(n_chosen[concept] == n // 2 for concept, n in Counter(concepts).items())


@given(st.permutations(range(40)), st.integers(0, 99))
def test_the_order_of_the_documents_does_not_matter(order: list[int], seed: int) -> None:
    moved = chosen([IDS[i] for i in order], [CONCEPTS[i] for i in order], seed)
    assert moved == chosen(IDS[:40], CONCEPTS[:40], seed)


@pytest.mark.parametrize("seed", range(5))
def test_a_new_document_moves_one_other_at_most_and_of_its_own_concept(seed: int) -> None:
    whole = chosen(IDS, CONCEPTS, seed)
    moved = []
    for i, (name, concept) in enumerate(zip(IDS, CONCEPTS, strict=True)):
        others = [j for j in range(len(IDS)) if j != i]
        before = chosen([IDS[j] for j in others], [CONCEPTS[j] for j in others], seed)
        changed = (whole ^ before) - {name}
        assert len(changed) <= 1
        assert {CONCEPTS[IDS.index(other)] for other in changed} <= {concept}
        moved.append(len(changed))
    assert 0 < np.mean(moved) < 1


def test_seeds_draw_other_halves_and_halves_are_no_alphabet() -> None:
    assert chosen(IDS, CONCEPTS, 0) != chosen(IDS, CONCEPTS, 1)
    share = len(chosen(IDS, CONCEPTS, 0) & set(IDS[:150])) / 150
    assert 0.35 < share < 0.65


def test_ids_and_concepts_of_different_lengths_are_an_error() -> None:
    with pytest.raises(ValueError, match="3 document ids with 2 concepts"):
        split_in_halves(["a", "b", "c"], ["x", "y"], 0)
