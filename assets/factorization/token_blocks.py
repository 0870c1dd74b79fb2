"""Activations in blocks of tokens, so that a fit needs one block in memory, whatever their number.

A solver walks over blocks again and again: products with Aᵀ add up over blocks, and each token's
coefficients depend on no other token's. A matrix in memory is one block, kept transposed; shards
(or anything that gives rows by block) are read anew in each pass. Blocks hand out (A / divisor)ᵀ
with contiguous rows, one a neuron: the layout that the solvers read. Nothing is solved here.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from assets.factorization.inputs import Divisor, check_finite, neuron_rows
from assets.factorization.scratch_folder import ScratchFolder


class TokenBlocks(Protocol):
    """The rows of an activation matrix, block after block."""

    width: int

    @property
    def sizes(self) -> Sequence[int]:
        """Tokens of each block."""
        ...

    def rows(self, block: int) -> Float[Tensor, "n_block d"]:
        """Rows as they are stored, in any number type."""
        ...

    def neurons(self, block: int, divisor: Divisor) -> Float[Tensor, "d n_block"]:
        """(A / divisor)ᵀ of a block, contiguous, in the number type of the computation."""
        ...


class MatrixBlocks:
    """A matrix in memory as one block; its scaled transpose is kept between passes."""

    def __init__(self, matrix: Float[Tensor, "n_tokens d"]) -> None:
        self.matrix = matrix
        self.width = matrix.shape[1]
        self._kept: tuple[Divisor, Tensor] | None = None

    @property
    def sizes(self) -> Sequence[int]:
        return (self.matrix.shape[0],)

    def rows(self, block: int) -> Float[Tensor, "n_block d"]:
        return self.matrix

    def neurons(self, block: int, divisor: Divisor) -> Float[Tensor, "d n_block"]:
        if self._kept is None or self._kept[0] is not divisor:
            self._kept = (divisor, neuron_rows(self.matrix, divisor))
        return self._kept[1]


class StreamedBlocks:
    """Rows that `read(block)` gives anew each time: a shard, say, less the tokens left out.

    Half precision is widened on the way into the transpose, on `device`; at most one block is held.
    NaN or infinity raise FactorizationError when they are first read.
    """

    def __init__(
        self,
        read: Callable[[int], Float[Tensor, "n_block d"]],
        sizes: Sequence[int],
        width: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self._read = read
        self._sizes = tuple(sizes)
        self.width = width
        self.device = torch.device(device)
        self._is_checked = [False] * len(self._sizes)

    @property
    def sizes(self) -> Sequence[int]:
        return self._sizes

    def rows(self, block: int) -> Float[Tensor, "n_block d"]:
        rows = self._read(block)
        if not self._is_checked[block]:
            check_finite(rows, first_row=sum(self.sizes[:block]))
            self._is_checked[block] = True
        return rows.to(self.device)

    def neurons(self, block: int, divisor: Divisor) -> Float[Tensor, "d n_block"]:
        return neuron_rows(self.rows(block), divisor)


def sampled_rows(
    blocks: TokenBlocks, n_rows: int, generator: torch.Generator
) -> Float[Tensor, "n_sample d"]:
    """`n_rows` tokens drawn without replacement (all, if there are fewer), in token order."""
    n_tokens = sum(blocks.sizes)
    chosen = torch.randperm(n_tokens, generator=generator)[:n_rows].sort().values
    sample: list[Tensor] = []
    begin = 0
    for block, size in enumerate(blocks.sizes):
        here = chosen[(chosen >= begin) & (chosen < begin + size)] - begin
        if len(here):
            rows = blocks.rows(block)
            sample.append(rows[here.to(rows.device)])
        begin += size
    return torch.cat(sample)


class CoefficientStore(Protocol):
    """The coefficients of each block between two passes."""

    def load(self, block: int) -> Float[Tensor, "k n_block"]: ...

    def save(self, block: int, coefficients: Float[Tensor, "k n_block"]) -> None: ...


class MemoryStore:
    """Coefficients kept in memory, zero at first."""

    def __init__(self, blocks: TokenBlocks, n_features: int, like: Tensor) -> None:
        self._kept = [like.new_zeros(n_features, size) for size in blocks.sizes]

    def load(self, block: int) -> Float[Tensor, "k n_block"]:
        return self._kept[block]

    def save(self, block: int, coefficients: Float[Tensor, "k n_block"]) -> None:
        self._kept[block] = coefficients


class ScratchStore:
    """Coefficients kept in scratch files, one a block, zero at first; gone when closed.

    Without a `folder` they are in one of the user's own in the system's place for such files.
    """

    def __init__(
        self, blocks: TokenBlocks, n_features: int, like: Tensor, folder: Path | None = None
    ) -> None:
        place = folder or Path(tempfile.gettempdir()) / f"featurelake-{os.getuid()}"
        self._folder = ScratchFolder(place)
        self._shapes = [(n_features, size) for size in blocks.sizes]
        self._like = like

    def load(self, block: int) -> Float[Tensor, "k n_block"]:
        path = self._path(block)
        if not path.exists():
            return self._like.new_zeros(self._shapes[block])
        values = np.fromfile(path, dtype=np.float32).reshape(self._shapes[block])
        return torch.from_numpy(values).to(self._like)

    def save(self, block: int, coefficients: Float[Tensor, "k n_block"]) -> None:
        coefficients.detach().to("cpu", torch.float32).numpy().tofile(self._path(block))

    def close(self) -> None:
        self._folder.close()

    def __enter__(self) -> ScratchStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _path(self, block: int) -> Path:
        return self._folder.path / f"block-{block:06d}.f32"


def each_block(blocks: TokenBlocks) -> Iterator[int]:
    """The numbers of the blocks that have tokens."""
    return (number for number, size in enumerate(blocks.sizes) if size)
