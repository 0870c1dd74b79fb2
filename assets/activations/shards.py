"""Activation shards: Parquet files of fixed-size lists, the record of what was captured.

float16 where every value fits (|a| <= 65,504), else float32; uncompressed, plain, in row groups
of 4,096, so that any Parquet reader takes them. A shard is written aside, flushed and renamed,
and its sidecar (.json: checksum, shape, dtype) after it: a shard without a fitting sidecar is not
there. A shard is named by its content; where it lies in a site's matrix (`first_row`) belongs to
the table, since another layout may use the same file. Which rows make a shard is capture.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock
from jaxtyping import Bool, Float
from torch import Tensor

COLUMN = "activation"
ROW_GROUP_SIZE = 4096
READ_BATCH = 512
# Without it the reader takes the bytes of a whole row group at once.
READ_BUFFER_BYTES = 2**20
FLOAT16_MAX = 65504.0
PUBLISH_LOCK = "publish.lock"


class ShardError(RuntimeError):
    """A shard that could not be written, is missing, or is not what was written."""


@dataclass(frozen=True)
class ShardFile:
    """What the sidecar says of one shard file."""

    path: str
    sha256: str
    dtype: str
    n_rows: int
    width: int
    n_bytes: int


@dataclass(frozen=True)
class ShardRecord(ShardFile):
    """A shard in its place in a site's matrix: one row of `activation_shards` (without site)."""

    shard: int
    first_row: int
    n_dropped_special: int

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> ShardRecord:
        """The record of a row of the table; other columns (site) are ignored."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})


def write_shard(path: Path, rows: Float[Tensor, "n_rows width"]) -> ShardFile:
    """Writes `rows` and the sidecar; returns what the sidecar says.

    Raises ShardError when a value is not finite, or when the disk refuses (full, read-only): the
    half-written file is removed and other shards are untouched.
    """
    rows = rows.detach().to("cpu")
    largest = float(rows.abs().max()) if rows.numel() else 0.0
    if not np.isfinite(largest):
        raise ShardError(
            f"activations for shard {path.name} hold NaN or infinity; expected finite values; "
            "compute in another number type (model.dtype: float32)"
        )
    dtype = "float16" if largest <= FLOAT16_MAX else "float32"
    values = rows.to(torch.float16 if dtype == "float16" else torch.float32).numpy()
    n_rows, width = values.shape
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width)
    table = pa.Table.from_arrays([column], names=[COLUMN])
    # A name of its own keeps two captures of the same shard from writing into one file.
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(
            table,
            temporary,
            compression="none",
            use_dictionary=False,
            write_statistics=False,
            row_group_size=ROW_GROUP_SIZE,
        )
        written = ShardFile(
            path=path.name,
            sha256=_sha256(temporary),
            dtype=dtype,
            n_rows=n_rows,
            width=width,
            n_bytes=temporary.stat().st_size,
        )
        # Of two captures of one shard the first stands: the second's bytes may differ by rounding,
        # and a checksum handed out must stay true.
        with FileLock(path.parent / PUBLISH_LOCK):
            if (found := complete_shard(path)) is not None:
                temporary.unlink()
                return found
            _publish(temporary, path)
            _write_sidecar(path, written)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise ShardError(
            f"writing shard {path} ({values.nbytes / 1e6:.1f} MB) failed: {error}; shards written "
            "before are whole and kept; make room on the disk (or point the lake to another one) "
            "and materialize again: the capture goes on where it stopped"
        ) from error
    return written


def complete_shard(path: Path) -> ShardFile | None:
    """What the sidecar says, if shard and sidecar are both there and the size fits.

    The shard is touched first, so that no maintenance takes it away (shard_removal.py).
    """
    try:
        os.utime(path)
        shard = ShardFile(**json.loads(sidecar_of(path).read_text()))
        return shard if path.stat().st_size == shard.n_bytes else None
    except (OSError, ValueError, TypeError):
        return None


def read_shard(
    path: Path, expected_sha256: str | None = None, part: int | None = None
) -> Float[Tensor, "n_rows width"]:
    """The rows of a shard in the dtype stored; raises ShardError when it is not what was written.

    With `expected_sha256` the whole file is checked first; `part` reads one row group alone.
    """
    if not path.is_file():
        raise ShardError(f"shard {path} is missing; materialize the site's activations again")
    if expected_sha256 is not None:
        found = _sha256(path)
        if found != expected_sha256:
            raise ShardError(
                f"shard {path} has sha256 {found}; expected {expected_sha256}: the file was "
                "changed or damaged; delete it and materialize the site's activations again"
            )
    try:
        with pq.ParquetFile(path, buffer_size=READ_BUFFER_BYTES) as file:
            groups = range(file.num_row_groups) if part is None else [part]
            n_rows = sum(file.metadata.row_group(group).num_rows for group in groups)
            element = file.schema_arrow.field(COLUMN).type
            matrix = np.empty((n_rows, element.list_size), element.value_type.to_pandas_dtype())
            filled = 0
            # In small batches: decoding a list column takes several times the memory of its values.
            for batch in file.iter_batches(READ_BATCH, row_groups=groups, columns=[COLUMN]):
                values = batch.column(0).flatten().to_numpy(zero_copy_only=False)
                matrix[filled : filled + len(batch)] = values.reshape(len(batch), -1)
                filled += len(batch)
    except (pa.ArrowException, OSError) as error:
        raise ShardError(
            f"shard {path} cannot be read as Parquet: {error}; delete it and materialize the "
            "site's activations again"
        ) from error
    return torch.from_numpy(matrix)


@dataclass(frozen=True)
class ShardPart:
    """One row group of a shard, in its place in a site's matrix."""

    shard: int
    part: int
    first_row: int
    n_rows: int


class ActivationReader:
    """A site's activation matrix over its shards; reads one shard at a time."""

    def __init__(
        self, shards: Sequence[ShardRecord], folder: Path, *, is_verified: bool = True
    ) -> None:
        """`is_verified` checks each file's checksum once; raises ShardError on gaps."""
        self.shards = sorted(shards, key=lambda shard: shard.shard)
        self.folder = Path(folder)
        self._is_verified = is_verified
        self._verified: set[int] = set()
        if not self.shards:
            raise ShardError("no shards; materialize the site's activations first")
        expected = 0
        for shard in self.shards:
            if shard.first_row != expected or shard.width != self.width:
                raise ShardError(
                    f"shard {shard.shard} ({shard.path}) starts at row {shard.first_row} with "
                    f"width {shard.width}; expected row {expected} and width {self.width}"
                )
            expected += shard.n_rows
        self.n_rows = expected

    @property
    def width(self) -> int:
        return self.shards[0].width

    def iter_shards(
        self, dtype: torch.dtype = torch.float32
    ) -> Iterator[tuple[int, Float[Tensor, "n_rows width"]]]:
        """(first row, rows) shard by shard, in row order."""
        for number, shard in enumerate(self.shards):
            yield shard.first_row, self.read(number).to(dtype)

    def read(self, number: int, part: int | None = None) -> Float[Tensor, "n_rows width"]:
        """The rows of one shard, by its place in `shards`, in the dtype stored.

        `part` reads one row group of it alone. A checksum is compared the first time only: fits
        read each shard many times.
        """
        shard = self.shards[number]
        is_new = self._is_verified and number not in self._verified
        rows = read_shard(self.folder / shard.path, shard.sha256 if is_new else None, part)
        self._verified.add(number)
        return rows

    def parts(self) -> list[ShardPart]:
        """Every row group of every shard, in row order."""
        return [
            ShardPart(
                shard=number,
                part=part,
                first_row=shard.first_row + begin,
                n_rows=min(ROW_GROUP_SIZE, shard.n_rows - begin),
            )
            for number, shard in enumerate(self.shards)
            for part, begin in enumerate(range(0, shard.n_rows, ROW_GROUP_SIZE))
        ]

    def load(
        self,
        dtype: torch.dtype = torch.float32,
        keep: Bool[Tensor, " n_rows"] | None = None,
    ) -> Float[Tensor, "n_kept width"]:
        """All rows in one tensor, or those where `keep` is true, in row order."""
        if keep is not None and keep.shape != (self.n_rows,):
            raise ValueError(f"keep has shape {tuple(keep.shape)}; expected ({self.n_rows},)")
        n_kept = self.n_rows if keep is None else int(keep.sum())
        matrix = torch.empty(n_kept, self.width, dtype=dtype)
        filled = 0
        for first_row, rows in self.iter_shards(dtype):
            if keep is not None:
                rows = rows[keep[first_row : first_row + len(rows)]]
            matrix[filled : filled + len(rows)] = rows
            filled += len(rows)
        return matrix


def shard_frame(shards: Sequence[ShardRecord]) -> pl.DataFrame:
    """Rows of `activation_shards`, without the site."""
    return pl.DataFrame([asdict(shard) for shard in shards])


def sidecar_of(path: Path) -> Path:
    """The sidecar's place."""
    return path.with_suffix(".json")


def _write_sidecar(path: Path, written: ShardFile) -> None:
    sidecar = sidecar_of(path)
    temporary = sidecar.with_name(f"{sidecar.name}.{uuid.uuid4().hex}.partial")
    try:
        temporary.write_text(json.dumps(asdict(written), indent=1))
        _publish(temporary, sidecar)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _publish(temporary: Path, path: Path) -> None:
    """Flushes the file to the disk, then gives it its name in one step."""
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
