"""Batches hold every document once within the budget; padding stands where no one sees it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.activations import batched_forward
from assets.activations.batched_forward import (
    forward_documents,
    length_sorted_batches,
    padded_inputs,
    same_length_batches,
)
from assets.activations.sites import ActivationSite
from assets.activations.tokenization import TokenizedDocument
from tests.activations.tiny_models import tiny_model

SITES = [ActivationSite(0), ActivationSite(1, "resid_post")]


def documents(lengths: list[int]) -> list[TokenizedDocument]:
    """Documents of so many tokens, behind one special token each."""
    return [
        TokenizedDocument(str(i), (1, *(4 + (7 * i + j) % 60 for j in range(length))), 1)
        for i, length in enumerate(lengths)
    ]


@settings(deadline=None, max_examples=50)
@given(
    lengths=st.lists(st.integers(1, 20), max_size=40),
    batch_tokens=st.integers(1, 90),
    least_tokens=st.integers(1, 40),
)
def test_batches_hold_every_document_once_within_the_budget(
    lengths: list[int], batch_tokens: int, least_tokens: int
) -> None:
    docs = documents(lengths)
    padded = list(length_sorted_batches(docs, batch_tokens))
    same = list(same_length_batches(docs, batch_tokens, least_tokens))
    assert sorted(i for batch in padded for i in batch) == list(range(len(docs)))
    assert sorted(i for batch in same for i in set(batch)) == list(range(len(docs)))
    for batch in [*padded, *same]:
        sizes = [len(docs[i].token_ids) for i in batch]
        assert max(sizes) * len(sizes) <= batch_tokens or len(batch) == 1
        assert sizes == sorted(sizes, reverse=True)
    for batch in same:
        sizes = {len(docs[i].token_ids) for i in batch}
        assert len(sizes) == 1
        # Filled up, as far as the budget allows.
        is_full = (len(batch) + 1) * sizes.pop() > batch_tokens
        assert is_full or sum(len(docs[i].token_ids) for i in batch) >= least_tokens


def test_padding_stands_on_the_right_and_is_masked() -> None:
    inputs = padded_inputs(tiny_model("gpt2"), [[5, 6, 7], [8]])
    assert inputs["input_ids"][:, 0].tolist() == [5, 8]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert inputs["position_ids"].tolist() == [[0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize("architecture", ["gpt2", "gemma3"])
def test_both_ways_of_batching_give_each_document_its_rows(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(architecture)
    docs = documents([3, 9, 1, 3, 12, 3, 1])

    def rows_of(batch_tokens: int):
        rows: dict[tuple[ActivationSite, int], torch.Tensor] = {}

        def keep(site: ActivationSite, index: int, found: torch.Tensor) -> None:
            assert (site, index) not in rows
            rows[site, index] = found.clone()

        return rows, forward_documents(model, docs, SITES, batch_tokens, keep)

    alone, _ = rows_of(1)
    assert {key: len(found) for key, found in alone.items()} == {
        (site, i): document.n_rows for site in SITES for i, document in enumerate(docs)
    }
    same, same_count = rows_of(40)
    monkeypatch.setattr(
        batched_forward, "same_length_batches", lambda docs, n, _: length_sorted_batches(docs, n)
    )
    padded, padded_count = rows_of(40)
    n_tokens = sum(len(document.token_ids) for document in docs)
    assert same_count.n_tokens == padded_count.n_tokens == n_tokens
    assert same_count.n_passes > padded_count.n_passes
    assert padded_count.n_padding > 0
    for found in (same, padded):
        torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)


def test_nothing_to_run_runs_nothing() -> None:
    count = forward_documents(tiny_model("gpt2"), [], [], 10, lambda *_: None)
    assert (count.n_passes, count.n_tokens, count.n_padding) == (0, 0, 0)
