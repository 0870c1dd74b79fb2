"""The sample is made of the lake's own tokens, by seed, and keeps rows and tokens together."""

from __future__ import annotations

import polars as pl
import pytest
import torch

from assets.faithfulness.sample import sample_documents, sampled_coefficients
from tests.faithfulness.planted import DOCUMENTS, coefficients_frame, tokens_frame, whole_sample


def test_documents_are_the_tables_tokens_with_the_prefix_in_front() -> None:
    sample = whole_sample((1, 2))
    assert [one.document.document_id for one in sample] == ["a", "b", "c", "e"]
    for one in sample:
        assert one.document.token_ids == (1, 2, *DOCUMENTS[one.document.document_id])
        assert one.document.n_rows == len(one.is_massive)
    assert [one.first_row for one in sample] == [0, 7, 10, 16]
    assert sample[0].is_massive.index(True) == 2 and sample[3].is_massive[0]


def test_a_sample_is_by_seed_and_without_replacement() -> None:
    many = pl.concat(
        [
            tokens_frame().with_columns(
                pl.col("document_id") + str(i), pl.col("row") + i * len(tokens_frame())
            )
            for i in range(20)
        ]
    )
    draws = [
        [one.document.document_id for one in sample_documents(many, (1,), 10, seed)]
        for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]
    assert all(len(set(draw)) == 10 for draw in draws)
    assert not any(name.startswith("d") for draw in draws for name in draw)


def test_tokens_that_predict_nothing_or_of_another_tokenizer_are_errors() -> None:
    with pytest.raises(ValueError, match="none of the 1 documents has two tokens"):
        sample_documents(tokens_frame().filter(document_id="d"), (1,), 5, 0)
    with pytest.raises(ValueError, match=r"begin at positions \[1\].* puts 0 special tokens"):
        sample_documents(tokens_frame(), (), 5, 0)


def test_coefficients_go_to_their_documents_rows_and_dictionary_rows() -> None:
    values = torch.rand(25, 3, generator=torch.Generator().manual_seed(0))
    values[values < 0.4] = 0
    frame = coefficients_frame(values, [7, 2, 9])
    sample = whole_sample()
    for one, own in zip(sample, sampled_coefficients(sample, frame, [7, 2, 9]), strict=True):
        expected = values[one.first_row : one.first_row + one.document.n_rows]
        assert torch.equal(torch.from_numpy(own.toarray()), expected)
    with pytest.raises(ValueError, match=r"features \[9\], which the dictionary lacks"):
        sampled_coefficients(sample, frame, [7, 2])
