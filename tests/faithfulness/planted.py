"""A sample of documents for a tiny model, and a dictionary that rebuilds its rows exactly."""

from __future__ import annotations

import polars as pl
import torch
from torch import Tensor, nn

from assets.activations.capture import capture_rows
from assets.activations.sites import ActivationSite
from assets.faithfulness.fit import Fit
from assets.faithfulness.sample import SampledDocument, sample_documents

# Documents of 7, 3, 5, 1 and 9 tokens; the one of a single token predicts nothing.
DOCUMENTS = {
    "a": [5, 9, 33, 4, 17, 50, 8],
    "b": [30, 21, 44],
    "c": [10, 11, 12, 13, 14],
    "d": [40],
    "e": [7, 7, 12, 60, 22, 31, 45, 46, 3],
}
BOS = (1,)


def tokens_frame(prefix: tuple[int, ...] = BOS) -> pl.DataFrame:
    """Rows of `tokens`; the third token of "a" and the first of "e" are massive."""
    rows = [
        {"document_id": name, "position": len(prefix) + i, "token_id": token}
        for name, ids in DOCUMENTS.items()
        for i, token in enumerate(ids)
    ]
    massive = {("a", len(prefix) + 2), ("e", len(prefix))}
    return pl.DataFrame(
        [
            {"row": row, **rest, "is_massive": (rest["document_id"], rest["position"]) in massive}
            for row, rest in enumerate(rows)
        ]
    )


def whole_sample(prefix: tuple[int, ...] = BOS) -> list[SampledDocument]:
    return sample_documents(tokens_frame(prefix), prefix, 100, seed=0)


def rows_of_the_site(model: nn.Module, site: ActivationSite) -> Tensor:
    """The site's rows of every document, in the order of `tokens_frame`; [n_tokens, d]."""
    documents = [one.document for one in whole_sample()]
    by_name = dict(
        zip(
            (document.document_id for document in documents),
            capture_rows(model, documents, site).split([d.n_rows for d in documents]),
            strict=True,
        )
    )
    missing = torch.zeros(1, next(iter(by_name.values())).shape[1])
    return torch.cat([by_name.get(name, missing) for name in DOCUMENTS])


def coefficients_frame(values: Tensor, feature_ids: list[int]) -> pl.DataFrame:
    rows, columns = values.nonzero(as_tuple=True)
    return pl.DataFrame(
        {
            "row": rows.tolist(),
            "feature_id": [feature_ids[column] for column in columns.tolist()],
            "coefficient": values[rows, columns].tolist(),
        },
        schema={"row": pl.Int64, "feature_id": pl.Int32, "coefficient": pl.Float32},
    )


def exact_fit(rows: Tensor, offset: Tensor | None = None) -> Fit:
    """Axes of both signs with the rows' own values: YZ (+ offset) is the rows. Ids have gaps."""
    centred = rows if offset is None else rows - offset
    axes = torch.eye(rows.shape[1])
    feature_ids = [3 * i + 2 for i in range(2 * len(axes))]
    values = torch.cat([centred.clamp_min(0), (-centred).clamp_min(0)], dim=1)
    return Fit(
        feature_ids=feature_ids,
        dictionary=torch.cat([axes, -axes]),
        coefficients=coefficients_frame(values, feature_ids),
        offset=offset,
        mean_row=rows.mean(dim=0),
    )


def random_fit(rows: Tensor, n_features: int = 4, seed: int = 0) -> Fit:
    """Random directions, each active on a third of the tokens; feature 40 nowhere."""
    generator = torch.Generator().manual_seed(seed)
    dictionary = torch.randn(n_features, rows.shape[1], generator=generator)
    dictionary /= dictionary.norm(dim=1, keepdim=True)
    values = 3 * torch.rand(len(rows), n_features, generator=generator)
    values *= torch.rand(values.shape, generator=generator) < 1 / 3
    values[:, -1] = 0
    feature_ids = [10 * (i + 1) for i in range(n_features)]
    return Fit(
        feature_ids=feature_ids,
        dictionary=dictionary,
        coefficients=coefficients_frame(values, feature_ids),
        offset=None,
        mean_row=rows.mean(dim=0),
    )
