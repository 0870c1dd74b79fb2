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


@given(
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["a", "b", None])), max_size=40),
    st.integers(0, 99),
)
def test_a_family_is_in_one_half_and_halves_differ_by_no_more_than_a_family(
    documents: list[tuple[int, str | None]], seed: int
) -> None:
    families = [f"family {family}" for family, _ in documents]
    concepts = [concept for _, concept in documents]
    halves = split_in_halves(families, concepts, seed)
    assert all(len(set(halves[np.array(families) == one])) == 1 for one in families)
    sizes = Counter(families)
    for concept, n in Counter(concepts).items():
        is_of = np.array([one == concept for one in concepts])
        of_concept = {f for f, c in zip(families, concepts, strict=True) if c == concept}
        own = {f for f in of_concept if sizes[f] == sum(is_of & (np.array(families) == f))}
        if own == of_concept:
            largest = max(sizes[one] for one in own)
            assert abs(halves[is_of].sum() - n // 2) <= (largest / 2 if largest > 1 else 0)


@pytest.mark.parametrize("seed", range(5))
def test_a_new_document_moves_one_family_at_most(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Families of 1 to about 5, each of one concept.
    families = [f"family {i}" for i in rng.integers(0, 120, 301)]
    concepts = [f"concept {int(one.split()[1]) % 5}" for one in families]
    whole = split_in_halves(families, concepts, seed)
    moved = []
    for i in range(301):
        rest = [j for j in range(301) if j != i]
        few = split_in_halves([families[j] for j in rest], [concepts[j] for j in rest], seed)
        changed = {families[j] for j, was in zip(rest, few, strict=True) if was != whole[j]}
        assert len(changed) <= 1
        moved.append(len(changed))
    assert 0 < np.mean(moved) < 1


def test_near_duplicates_of_two_concepts_are_not_parted_by_either() -> None:
    families = [f"pair {i // 2}" if i < 40 else f"single {i}" for i in range(120)]
    concepts = ["a" if i % 2 else "b" for i in range(120)]
    for seed in range(20):
        halves = split_in_halves(families, concepts, seed)
        assert (halves[:40:2] == halves[1:40:2]).all()
        # The rest of each concept makes up for where the pairs fell.
        assert halves[::2].sum() == halves[1::2].sum() == 30


def test_documents_of_an_older_version_are_an_error_with_a_remedy() -> None:
    with pytest.raises(ValueError, match="1 of 2 documents have no minhash"):
        split_in_halves(["a", None], ["x", "x"], 0)


def test_min_hashes_and_concepts_of_different_lengths_are_an_error() -> None:
    with pytest.raises(ValueError, match="3 min-hashes with 2 concepts"):
        split_in_halves(["a", "b", "c"], ["x", "y"], 0)
