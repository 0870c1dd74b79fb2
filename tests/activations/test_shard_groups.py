"""Groups: whole, bounded, and the same again around a document that came or went."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.activations.shard_groups import document_hash, group_documents
from assets.activations.tokenization import TokenizedDocument


def documents(n: int, seed: int = 0) -> list[TokenizedDocument]:
    rng = np.random.default_rng(seed)
    return [
        TokenizedDocument(f"d{i}", (1, *rng.integers(4, 64, rng.integers(0, 21)).tolist()), 1)
        for i in range(n)
    ]


@settings(deadline=None, max_examples=40)
@given(n=st.integers(0, 80), seed=st.integers(0, 99), shard_tokens=st.integers(1, 90))
def test_groups_are_the_documents_in_order_and_neither_small_nor_large(
    n: int, seed: int, shard_tokens: int
) -> None:
    docs = documents(n, seed)
    groups = list(group_documents(docs, shard_tokens))
    assert [d for group in groups for d in group.documents] == [d for d in docs if d.n_rows]
    for group in groups:
        assert group.n_rows == sum(d.n_rows for d in group.documents)
        assert group.n_rows - group.documents[-1].n_rows < 2 * shard_tokens
    assert all(group.n_rows >= shard_tokens / 2 for group in groups[:-1])


def test_groups_hold_about_the_shard_tokens() -> None:
    groups = list(group_documents(documents(20_000), 1000))[:-1]
    assert 900 < np.mean([group.n_rows for group in groups]) < 1100


def test_a_document_that_comes_or_goes_changes_few_groups() -> None:
    docs = documents(4000)
    before = {group.hashes for group in group_documents(docs, 400)}
    assert len(before) > 80
    n_changed = []
    for place in range(50, 4000, 130):
        added = [*docs[:place], *documents(1, seed=10_000 + place), *docs[place:]]
        removed = docs[:place] + docs[place + 1 :]
        for now in (added, removed):
            after = {group.hashes for group in group_documents(now, 400)}
            n_changed.append(len(after - before))
    assert np.mean(n_changed) < 3
    # A boundary at fixed row counts would change half of all groups.
    assert max(n_changed) < 15


def test_a_hash_is_of_the_tokens_and_what_is_prefix() -> None:
    document = TokenizedDocument("a", (1, 5, 6), 1)
    assert document_hash(document) == document_hash(replace(document, document_id="b"))
    assert document_hash(document) == document_hash(replace(document, is_truncated=True))
    assert document_hash(document) != document_hash(replace(document, n_special_prefix=0))
    assert document_hash(document) != document_hash(replace(document, token_ids=(1, 6, 5)))
    # As plain text "1 1 56" and "1 15 6" would run into one another.
    assert document_hash(replace(document, token_ids=(1, 56))) != document_hash(
        replace(document, token_ids=(15, 6))
    )
