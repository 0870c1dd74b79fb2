"""Documents that come and go: tokens and coefficients of each follow from its name alone."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import polars as pl
import torch
from torch import Tensor, nn

from assets.faithfulness.fit import Fit
from assets.faithfulness.sample import SampledDocument, sample_documents
from tests.activations.tiny_models import VOCABULARY
from tests.faithfulness.planted import BOS

FEATURE_IDS = [10, 20, 30, 40]
WIDTH = 40
SCHEMA = {"row": pl.Int64, "feature_id": pl.Int32, "coefficient": pl.Float32}


def token_ids_of(name: str) -> list[int]:
    """Three to nine tokens; names alike up to a quote mark have the same."""
    generator = _generator(name.rstrip("'"))
    n_tokens = int(torch.randint(3, 10, (1,), generator=generator))
    return torch.randint(2, VOCABULARY, (n_tokens,), generator=generator).tolist()


def strengths_of(name: str) -> Tensor:
    """Coefficients [n_tokens, 4]: half are zero, feature 40's all, and feature 10's in "q…"."""
    n_tokens = len(token_ids_of(name))
    generator = _generator(name.rstrip("'") + " strengths")
    values = 3 * torch.rand(n_tokens, len(FEATURE_IDS), generator=generator)
    values *= torch.rand(values.shape, generator=generator) < 0.5
    values[:, -1] = 0
    if name.startswith("q"):
        values[:, 0] = 0
    return values


def sampled(names: Sequence[str], n_documents: int = 100) -> list[SampledDocument]:
    """The sample of a corpus of these documents; the second token of each "m…" is massive."""
    rows = [
        {
            "document_id": name,
            "position": len(BOS) + i,
            "token_id": token,
            "is_massive": name.startswith("m") and i == 1,
        }
        for name in names
        for i, token in enumerate(token_ids_of(name))
    ]
    tokens = pl.DataFrame(rows).with_row_index("row")
    return sample_documents(tokens, BOS, n_documents, seed=0)


def fit_on(names: Sequence[str]) -> Fit:
    """A fit whose dictionary stays, and the coefficients of these documents."""
    generator = torch.Generator().manual_seed(0)
    dictionary = torch.randn(len(FEATURE_IDS), WIDTH, generator=generator)
    values = torch.cat([strengths_of(name) for name in names])
    rows, columns = values.nonzero(as_tuple=True)
    coefficients = pl.DataFrame(
        {
            "row": rows.tolist(),
            "feature_id": [FEATURE_IDS[column] for column in columns.tolist()],
            "coefficient": values[rows, columns].tolist(),
        },
        schema=SCHEMA,
    )
    return Fit(
        feature_ids=FEATURE_IDS,
        dictionary=dictionary / dictionary.norm(dim=1, keepdim=True),
        coefficients=coefficients,
        offset=None,
        mean_row=torch.randn(WIDTH, generator=generator),
    )


class Forwards:
    """What went through a model: token positions, and the documents' own tokens in each row."""

    def __init__(self) -> None:
        self.n_tokens = 0
        self.documents: list[tuple[int, ...]] = []

    def note(self, _module: nn.Module, _args: object, inputs: dict[str, Tensor]) -> None:
        self.n_tokens += inputs["input_ids"].numel()
        for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
            self.documents.append(tuple(ids[mask.bool()].tolist()[len(BOS) :]))

    def n_runs_of(self, name: str) -> int:
        return self.documents.count(tuple(token_ids_of(name)))


@contextmanager
def counted_forwards(model: nn.Module) -> Iterator[Forwards]:
    forwards = Forwards()
    handle = model.register_forward_pre_hook(forwards.note, with_kwargs=True)
    try:
        yield forwards
    finally:
        handle.remove()


def _generator(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))
