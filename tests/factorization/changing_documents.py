"""Planted documents that are added, edited, removed or flagged, and fits of them as they follow."""

from __future__ import annotations

import torch
from factorization.conftest import plant, settings_for

from assets.factorization.config import FitConfig
from assets.factorization.fit_inputs import FitInputs
from assets.factorization.fit_source import MatrixSource
from assets.factorization.fitting import MadeFit, make_fit
from assets.factorization.refit import PreviousFit, previous_fit
from assets.factorization.tables import COEFFICIENTS

PARTITION = {"site": "demo:model@L1.mlp_hidden", "fit": "any"}
SETTINGS = "code-and-settings"
TOKENS_EACH = 8
DATA = plant(n_tokens=130 * TOKENS_EACH, noise=0.05)
CONCEPTS = ("red", "blue")


class Corpus:
    """Documents of eight planted tokens each, by number; every other one of a concept is held out.

    `edited` documents have other activations under the same id, as another model would give.
    """

    def __init__(self, numbers, edited=(), massive=(), relabelled=(), swapped=()):
        self.numbers = list(numbers)
        rows = [
            DATA.activations[TOKENS_EACH * n : TOKENS_EACH * (n + 1)] * (1.5 if n in edited else 1)
            for n in self.numbers
        ]
        self.activations = torch.cat(rows)
        of_token = [n for n in self.numbers for _ in range(TOKENS_EACH)]
        self.inputs = FitInputs(
            shards=[repr((self.numbers, edited, massive, relabelled, swapped))],
            documents=[f"d{n}" for n in of_token],
            is_massive=torch.tensor([n in massive for n in of_token]),
            concepts=["green" if n in relabelled else CONCEPTS[n % 2] for n in of_token],
            is_held_out=torch.tensor([(n % 4 < 2) != (n in swapped) for n in of_token]),
        )

    def rows_of(self, numbers) -> list[int]:
        starts = {n: TOKENS_EACH * place for place, n in enumerate(self.numbers)}
        return [starts[n] + i for n in numbers for i in range(TOKENS_EACH)]


def fit_of(method="snmf", **settings) -> FitConfig:
    values = {"rank": None if method == "diff_means" else 10, "keep_fraction": DATA.keep_fraction}
    return FitConfig(**settings_for(method, method=method, **values | settings))


def make(corpus: Corpus, fit: FitConfig, before: MadeFit | None = None, settings=SETTINGS):
    previous = None if before is None else stored(before)
    source = MatrixSource(corpus.activations, corpus.inputs, corpus.activations.flip(1))
    return make_fit(source, fit, corpus.inputs, previous, settings=settings)


def stored(made: MadeFit) -> PreviousFit:
    """A made fit as the lake gives it back."""
    frames = {table: table.conform(frame, PARTITION) for table, frame in made.frames.items()}
    read = {table: frames[table] for table in PreviousFit.TABLES}
    previous = previous_fit(read, 7, lambda: frames[COEFFICIENTS])
    assert previous is not None
    return previous
