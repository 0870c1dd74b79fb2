"""Scores of corpus documents and of new sentences at one site, from activations to text_scores.

Massive tokens are left out of both: of the corpus by their flag, of sentences by the same row norm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from assets.activations.capture import capture_rows
from assets.activations.shards import ActivationReader
from assets.activations.sites import ActivationSite
from assets.activations.tokenization import tokenize_documents
from assets.detection.text_scores import max_cosine_scores


def corpus_scores(
    reader: ActivationReader,
    tokens: pl.DataFrame,
    document_ids: Sequence[str],
    dictionary: Float[Tensor, "k d"],
) -> Float[np.ndarray, "n_documents k"]:
    """max_cosine_scores of each document, one shard in memory at a time.

    `tokens` has row (in order, from 0), document_id and is_massive of the same site.
    """
    numbers = pl.DataFrame({"document_id": document_ids}).with_row_index("number")
    joined = tokens.join(numbers, on="document_id", how="left", maintain_order="left")
    number = torch.from_numpy(joined["number"].cast(pl.Int64).to_numpy(writable=True))
    counts = ~torch.from_numpy(joined["is_massive"].to_numpy(writable=True))

    def chunks() -> Iterator[tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]]:
        for first, rows in reader.iter_shards():
            part = slice(first, first + len(rows))
            yield rows[counts[part]], number[part][counts[part]]

    return max_cosine_scores(chunks(), dictionary, len(document_ids))


@dataclass(frozen=True)
class SentenceScores:
    """Scores of sentences (NaN where there is none), and what they say of massive tokens.

    `largest_norm` is the largest row norm among a sentence's tokens that count,
    `smallest_massive_norm` the smallest among those left out; NaN where there are none. Another
    threshold between the two leaves out the same tokens. `n_tokens` went through the model.
    """

    scores: Float[np.ndarray, "n_sentences k"]
    largest_norm: Float[np.ndarray, " n_sentences"]
    smallest_massive_norm: Float[np.ndarray, " n_sentences"]
    n_tokens: int


def sentence_scores(
    model: Any,
    tokenizer: Any,
    site: ActivationSite,
    sentences: Sequence[str],
    dictionary: Float[Tensor, "k d"],
    *,
    max_tokens: int,
    massive_norm: float,
) -> SentenceScores:
    """max_cosine_scores of sentences that aren't in the corpus; rows above `massive_norm` are out.

    A sentence without a token that counts has NaN.
    """
    documents = tokenize_documents(
        tokenizer, [(str(i), text) for i, text in enumerate(sentences)], max_tokens
    )
    rows = capture_rows(model, documents, site).float()
    number = torch.tensor(
        [i for i, document in enumerate(documents) for _ in range(document.n_rows)]
    )
    norms = rows.norm(dim=1).double()
    counts = norms <= massive_norm
    n = len(sentences)
    return SentenceScores(
        # Sentences that failed before are scored later, and alone: to the same digits.
        max_cosine_scores([(rows[counts], number[counts])], dictionary, n, torch.float64),
        _extremes(norms[counts], number[counts], n, "amax"),
        _extremes(norms[~counts], number[~counts], n, "amin"),
        sum(len(document.token_ids) for document in documents),
    )


def sentence_token_counts(tokenizer: Any, sentences: Sequence[str], max_tokens: int) -> list[int]:
    """Own tokens of each sentence that go through the model, massive ones among them."""
    documents = tokenize_documents(
        tokenizer, [(str(i), text) for i, text in enumerate(sentences)], max_tokens
    )
    return [document.n_rows for document in documents]


def document_token_counts(
    tokens: pl.DataFrame, document_ids: Sequence[str]
) -> Int[np.ndarray, " n_documents"]:
    """The same of corpus documents; `tokens` has a row a token, with document_id."""
    counts = tokens.group_by("document_id").len("n_tokens")
    found = pl.DataFrame({"document_id": document_ids}, schema={"document_id": pl.String})
    found = found.join(counts, on="document_id", how="left", maintain_order="left")
    return found["n_tokens"].fill_null(0).cast(pl.Int64).to_numpy()


def _extremes(
    norms: Float[Tensor, " n_tokens"],
    number: Int[Tensor, " n_tokens"],
    n_sentences: int,
    which: Literal["amax", "amin"],
) -> Float[np.ndarray, " n_sentences"]:
    found = torch.full((n_sentences,), torch.nan, dtype=torch.float64)
    return found.scatter_reduce(0, number, norms.cpu(), which, include_self=False).numpy()
