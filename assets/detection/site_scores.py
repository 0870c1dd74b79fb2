"""Scores of corpus documents and of new sentences at one site, from activations to text_scores.

Massive tokens are left out of both: of the corpus by their flag, of sentences by the same row norm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

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


def sentence_scores(
    model: Any,
    tokenizer: Any,
    site: ActivationSite,
    sentences: Sequence[str],
    dictionary: Float[Tensor, "k d"],
    *,
    max_tokens: int,
    massive_norm: float,
) -> Float[np.ndarray, "n_sentences k"]:
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
    counts = rows.norm(dim=1) <= massive_norm
    return max_cosine_scores([(rows[counts], number[counts])], dictionary, len(sentences))
