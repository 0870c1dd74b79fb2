"""Where a fit's activations are: in memory, or in shards that are streamed.

Both answer the same questions of fitting.py. In memory, every method is there; shards are for
fits larger than memory (streaming.py says which those can be).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from assets.activations.shards import ActivationReader
from assets.factorization.config import FitConfig
from assets.factorization.coordinate_solver import ProgressCallback
from assets.factorization.factorization import Factorization
from assets.factorization.fit_inputs import FitInputs, activations_scale
from assets.factorization.inputs import FactorizationError
from assets.factorization.methods import factorize
from assets.factorization.projection import KeptFit, project_tokens
from assets.factorization.rank_choice import CandidateCallback, RankChoice, choose_rank
from assets.factorization.stability import FeatureStability, seed_stability
from assets.factorization.streaming import factorize_streamed, needs_streaming, project_streamed

ROWS_AT_A_TIME = 8_192


class FitSource(Protocol):
    """Activations of one site, with what a fit can be asked of them."""

    n_tokens: int
    width: int

    def rows(self) -> Iterator[Float[Tensor, "n_rows d"]]:
        """The activations in token order, piece by piece."""
        ...

    def rows_read(self, fit: FitConfig) -> Iterator[Float[Tensor, "n_rows d_read"]]:
        """All that a token's coefficients hang on: with `rows` those of the fit's other site."""
        ...

    def fit(
        self, fit: FitConfig, start: Float[Tensor, "k d"] | None, on_iteration: ProgressCallback
    ) -> tuple[Factorization, float | None]:
        """A fit, and the mean row norm that it divided by (None: the method does not)."""
        ...

    def project(self, fit: FitConfig, kept: KeptFit) -> Factorization:
        """Coefficients for a dictionary that stays."""
        ...

    def choose_rank(self, fit: FitConfig, on_fit: CandidateCallback) -> RankChoice: ...

    def stability(self, fit: FitConfig, dictionary: Float[Tensor, "k d"]) -> FeatureStability: ...


class MatrixSource:
    """Activations in memory, on the fit's device."""

    def __init__(
        self,
        activations: Float[Tensor, "n_tokens d"],
        inputs: FitInputs,
        input_activations: Float[Tensor, "n_tokens d_in"] | None = None,
    ) -> None:
        self.n_tokens, self.width = activations.shape
        self._activations = activations
        self._input_activations = input_activations
        self._inputs = inputs

    def rows(self) -> Iterator[Float[Tensor, "n_rows d"]]:
        yield self._activations

    def rows_read(self, fit: FitConfig) -> Iterator[Float[Tensor, "n_rows d_read"]]:
        if fit.input_kind is None or self._input_activations is None:
            yield self._activations
            return
        outputs = self._activations.split(ROWS_AT_A_TIME)
        inputs = self._input_activations.split(ROWS_AT_A_TIME)
        for pair in zip(outputs, inputs, strict=True):
            yield torch.cat([part.float() for part in pair], dim=1)

    def fit(
        self, fit: FitConfig, start: Float[Tensor, "k d"] | None, on_iteration: ProgressCallback
    ) -> tuple[Factorization, float | None]:
        inputs, scale = self._inputs, None
        if fit.is_sparse:
            scale = activations_scale(self._activations, inputs.is_massive)
        fitted = factorize(
            self._on_device(fit),
            fit,
            concepts=inputs.concepts,
            is_held_out=inputs.is_held_out,
            is_massive=inputs.is_massive,
            start_dictionary=start,
            input_activations=self._input_activations,
            site=inputs.site,
            sae_folder=inputs.sae_folder,
            on_iteration=on_iteration,
        )
        return fitted, scale

    def project(self, fit: FitConfig, kept: KeptFit) -> Factorization:
        return project_tokens(
            self._on_device(fit),
            fit,
            kept,
            is_massive=self._inputs.is_massive,
            is_held_out=self._inputs.is_held_out,
            input_activations=self._input_activations,
        )

    def choose_rank(self, fit: FitConfig, on_fit: CandidateCallback) -> RankChoice:
        return choose_rank(
            self._on_device(fit),
            self._inputs.document_index(),
            fit,
            is_massive=self._inputs.is_massive,
            on_fit=on_fit,
        )

    def stability(self, fit: FitConfig, dictionary: Float[Tensor, "k d"]) -> FeatureStability:
        return seed_stability(
            self._on_device(fit), fit, dictionary, is_massive=self._inputs.is_massive
        )

    def _on_device(self, fit: FitConfig) -> Float[Tensor, "n_tokens d"]:
        # The other methods are small enough, or scikit-learn's, for the processor.
        return self._activations.to(device_of(fit)) if fit.is_sparse else self._activations


class ShardSource:
    """Activations read shard by shard; choosing a rank and stability need them in memory."""

    def __init__(
        self, reader: ActivationReader, inputs: FitInputs, scratch_folder: Path | None = None
    ) -> None:
        self.n_tokens, self.width = reader.n_rows, reader.width
        self._reader, self._inputs, self._scratch = reader, inputs, scratch_folder

    def rows(self) -> Iterator[Float[Tensor, "n_rows d"]]:
        return (self._reader.read(part.shard, part.part) for part in self._reader.parts())

    def rows_read(self, fit: FitConfig) -> Iterator[Float[Tensor, "n_rows d_read"]]:
        # Methods that read another site can't stream.
        return self.rows()

    def fit(
        self, fit: FitConfig, start: Float[Tensor, "k d"] | None, on_iteration: ProgressCallback
    ) -> tuple[Factorization, float | None]:
        return factorize_streamed(
            self._reader,
            fit,
            is_massive=self._inputs.is_massive,
            start_dictionary=start,
            device=device_of(fit),
            scratch_folder=self._scratch,
            on_iteration=on_iteration,
        )

    def project(self, fit: FitConfig, kept: KeptFit) -> Factorization:
        return project_streamed(
            self._reader,
            fit,
            kept,
            is_massive=self._inputs.is_massive,
            device=device_of(fit),
        )

    def choose_rank(self, fit: FitConfig, on_fit: CandidateCallback) -> RankChoice:
        raise FactorizationError(
            f"rank {fit.rank!r} found for streamed activations; expected a number"
        )

    def stability(self, fit: FitConfig, dictionary: Float[Tensor, "k d"]) -> FeatureStability:
        # needs_streaming refuses stability_seeds, so nothing is read of these no rows.
        return seed_stability(torch.zeros(0, self.width), fit, dictionary)


def source_of(
    reader: ActivationReader,
    fit: FitConfig,
    inputs: FitInputs,
    *,
    input_reader: ActivationReader | None = None,
    scratch_folder: Path | None = None,
) -> FitSource:
    """The activations in memory where `max_memory_gib` lets them, else their shards.

    `input_reader` is of the site that a transcoder reads.
    """
    width = reader.width + (0 if input_reader is None else input_reader.width)
    if needs_streaming(fit, reader.n_rows, width):
        return ShardSource(reader, inputs, scratch_folder)
    other = None if input_reader is None else input_reader.load()
    return MatrixSource(reader.load(), inputs, other)


def device_of(fit: FitConfig) -> torch.device:
    """The device that a fit is computed on."""
    if fit.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if fit.device == "cuda" and not torch.cuda.is_available():
        raise FactorizationError(
            f"fit {fit.key} asks for device 'cuda' and PyTorch sees no GPU here; set device: auto, "
            "or run where there is one"
        )
    return torch.device(fit.device)
