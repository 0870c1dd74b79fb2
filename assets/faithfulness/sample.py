"""The documents that faithfulness is measured on, as the lake's `tokens` have them.

Documents are put together from token ids, not tokenized again, so that row i of the activations
and of the coefficients is the same token here. A document counts when a row of it has a next token
to predict. The sample is drawn in hash order (shared/hash_order.py): a new document enters n of N
with probability n / (N + 1), and else all that was measured stands. Running documents is
replaced_forward.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix

from assets.activations.tokenization import TokenizedDocument
from assets.shared.hash_order import text_hashes


@dataclass(frozen=True)
class SampledDocument:
    """A document, the rows of the site's activations that are its own, and which are massive.

    `first_row` counts in the site's rows; row i is the token at position n_special_prefix + i.
    """

    document: TokenizedDocument
    first_row: int
    is_massive: tuple[bool, ...]


def sample_documents(
    tokens: pl.DataFrame, special_prefix: Sequence[int], n_documents: int, seed: int
) -> list[SampledDocument]:
    """At most `n_documents` documents of two rows or more, drawn by seed, in the order of ids.

    `tokens` has the columns row, document_id, position, token_id and is_massive of `tokens`.
    Raises ValueError when no document has two rows, or the positions do not fit the prefix.
    """
    grouped = (
        tokens.sort("row")
        .group_by("document_id", maintain_order=True)
        .agg(
            pl.col("row").first().alias("first_row"),
            pl.col("position").first().alias("first_position"),
            pl.col("token_id"),
            pl.col("is_massive"),
        )
        .filter(pl.col("token_id").list.len() >= 2)
    )
    if grouped.is_empty():
        raise ValueError(
            f"none of the {tokens['document_id'].n_unique()} documents has two tokens; nothing "
            "predicts a next token: check the corpus and activations.max_tokens_per_document"
        )
    found = grouped["first_position"].unique().to_list()
    if found != [len(special_prefix)]:
        raise ValueError(
            f"documents begin at positions {sorted(found)}, but the tokenizer puts "
            f"{len(special_prefix)} special tokens in front; the tokens are of another tokenizer: "
            "materialize `tokens` again"
        )
    grouped = grouped.sort("document_id")
    hashes = text_hashes(grouped["document_id"], seed, "faithfulness sample")
    drawn = np.argsort(hashes, kind="stable")[:n_documents]
    return [
        SampledDocument(
            TokenizedDocument(
                row["document_id"], (*special_prefix, *row["token_id"]), len(special_prefix)
            ),
            row["first_row"],
            tuple(row["is_massive"]),
        )
        for row in grouped[sorted(drawn.tolist())].iter_rows(named=True)
    ]


def sampled_coefficients(
    sample: Sequence[SampledDocument], coefficients: pl.DataFrame, feature_ids: Sequence[int]
) -> list[csr_matrix]:
    """The coefficients of each document, [n_rows, k] in the order of `feature_ids`.

    `coefficients` has the columns row, feature_id and coefficient. Raises ValueError for a feature
    that `feature_ids` does not name.
    """
    unknown = set(coefficients["feature_id"].unique().to_list()) - set(feature_ids)
    if unknown:
        raise ValueError(
            f"coefficients of features {sorted(unknown)[:5]}, which the dictionary lacks: they "
            "belong to another fit; materialize the factorization again"
        )
    columns = {feature_id: column for column, feature_id in enumerate(feature_ids)}
    places = pl.DataFrame(
        {
            "row": [s.first_row + i for s in sample for i in range(s.document.n_rows)],
            "document": [d for d, s in enumerate(sample) for _ in range(s.document.n_rows)],
            "at": [i for s in sample for i in range(s.document.n_rows)],
        },
        schema={"row": pl.Int64, "document": pl.Int64, "at": pl.Int64},
    )
    values = (
        coefficients.with_columns(pl.col("row").cast(pl.Int64))
        .join(places, on="row")
        .with_columns(
            pl.col("feature_id").replace_strict(columns, return_dtype=pl.Int64).alias("column")
        )
    )
    matrices = []
    for index, one in enumerate(sample):
        own = values.filter(document=index)
        matrices.append(
            csr_matrix(
                (
                    own["coefficient"].cast(pl.Float32).to_numpy(),
                    (own["at"].to_numpy(), own["column"].to_numpy()),
                ),
                shape=(one.document.n_rows, len(feature_ids)),
            )
        )
    return matrices
