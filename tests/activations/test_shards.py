"""Shard files: what is read is what was written, and damage or a full disk is noticed."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import asdict, replace
from pathlib import Path

import duckdb
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.activations.shards import (
    ActivationReader,
    ShardError,
    ShardRecord,
    complete_shard,
    read_shard,
    shard_frame,
    write_shard,
)
from assets.activations.tables import ACTIVATION_SHARDS


def matrix(n_rows: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n_rows, width, generator=torch.Generator().manual_seed(seed))


def records(
    folder: Path, sizes: list[int], width: int = 6
) -> tuple[list[ShardRecord], torch.Tensor]:
    rows = matrix(sum(sizes), width).half().float()
    made, first = [], 0
    for number, size in enumerate(sizes):
        file = write_shard(folder / f"s{number}.parquet", rows[first : first + size])
        made.append(ShardRecord(**asdict(file), shard=number, first_row=first, n_dropped_special=0))
        first += size
    return made, rows


@settings(deadline=None, max_examples=25)
@given(n_rows=st.integers(1, 40), width=st.integers(1, 9), seed=st.integers(0, 99))
def test_float16_round_trip(tmp_path_factory, n_rows: int, width: int, seed: int) -> None:
    path = tmp_path_factory.mktemp("shards") / "a.parquet"
    rows = matrix(n_rows, width, seed)
    file = write_shard(path, rows)
    assert (file.dtype, file.n_rows, file.width) == ("float16", n_rows, width)
    assert torch.equal(read_shard(path, file.sha256), rows.half())
    assert complete_shard(path) == file
    assert sorted(p.name for p in path.parent.glob("a*")) == ["a.json", "a.parquet"]


def test_more_rows_than_a_row_group(tmp_path: Path) -> None:
    rows = matrix(9000, 3)
    file = write_shard(tmp_path / "a.parquet", rows)
    assert torch.equal(read_shard(tmp_path / "a.parquet", file.sha256), rows.half())


@pytest.mark.parametrize(
    ("largest", "dtype"), [(65504.0, "float16"), (65520.0, "float32"), (-7e4, "float32")]
)
def test_values_beyond_float16_are_kept_in_float32(
    tmp_path: Path, largest: float, dtype: str
) -> None:
    rows = matrix(4, 3)
    rows[2, 1] = largest
    file = write_shard(tmp_path / "a.parquet", rows)
    assert file.dtype == dtype
    stored = read_shard(tmp_path / "a.parquet", file.sha256)
    assert stored[2, 1] == largest
    if dtype == "float32":
        assert torch.equal(stored, rows)


def test_bfloat16_rows_are_stored(tmp_path: Path) -> None:
    rows = matrix(4, 3).bfloat16()
    write_shard(tmp_path / "a.parquet", rows)
    torch.testing.assert_close(read_shard(tmp_path / "a.parquet").float(), rows.float())


def test_tampering_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    file = write_shard(path, matrix(50, 8))
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(ShardError, match=rf"expected {file.sha256}.*changed or damaged"):
        read_shard(path, file.sha256)
    path.write_bytes(b"not parquet")
    with pytest.raises(ShardError, match="cannot be read as Parquet"):
        read_shard(path)
    path.unlink()
    with pytest.raises(ShardError, match="missing"):
        read_shard(path)


def test_the_reader_puts_shards_together(tmp_path: Path) -> None:
    made, rows = records(tmp_path, [3, 5, 2])
    reader = ActivationReader(list(reversed(made)), tmp_path)
    assert (reader.n_rows, reader.width) == (10, 6)
    assert torch.equal(reader.load(), rows)
    assert reader.load(torch.float16).dtype == torch.float16
    assert [(first, len(part)) for first, part in reader.iter_shards()] == [(0, 3), (3, 5), (8, 2)]
    keep = torch.tensor([True, False] * 5)
    assert torch.equal(reader.load(keep=keep), rows[keep])
    with pytest.raises(ValueError, match=r"expected \(10,\)"):
        reader.load(keep=keep[:3])


def test_the_reader_checks_sums_and_gaps(tmp_path: Path) -> None:
    made, _ = records(tmp_path, [3, 5, 2])
    with pytest.raises(ShardError, match="starts at row 8"):
        ActivationReader([made[0], made[2]], tmp_path)
    with pytest.raises(ShardError, match="no shards"):
        ActivationReader([], tmp_path)
    wrong = [replace(made[0], sha256="0" * 64), *made[1:]]
    with pytest.raises(ShardError, match="sha256"):
        ActivationReader(wrong, tmp_path).load()


def test_records_become_rows_of_the_table_and_back(tmp_path: Path) -> None:
    made, _ = records(tmp_path, [3, 5])
    frame = ACTIVATION_SHARDS.conform(shard_frame(made), {"site": "study:m@L1.mlp_hidden"})
    assert [ShardRecord.from_row(row) for row in frame.iter_rows(named=True)] == made


def test_sql_reads_shards_with_their_row_numbers(tmp_path: Path) -> None:
    made, rows = records(tmp_path, [3, 5])
    found = duckdb.execute(
        f"SELECT file_row_number, activation FROM read_parquet('{tmp_path / made[1].path}', "
        "file_row_number => true) ORDER BY file_row_number"
    ).fetchall()
    assert [number for number, _ in found] == list(range(5))
    assert torch.equal(torch.tensor([values for _, values in found]), rows[3:])


def test_a_full_disk_leaves_earlier_shards_and_no_scraps(tmp_path: Path) -> None:
    """A real refusal by the operating system: the process may not write files beyond 200 kB."""
    program = textwrap.dedent(
        """
        import resource, sys
        from pathlib import Path
        import torch
        from assets.activations.shards import ShardError, write_shard
        folder = Path(sys.argv[1])
        write_shard(folder / "first.parquet", torch.ones(100, 64))
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        try:
            write_shard(folder / "second.parquet", torch.ones(10_000, 64))
        except ShardError as error:
            sys.exit(str(error))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 1
    assert "make room on the disk" in done.stderr
    assert "materialize again" in done.stderr
    left = sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".lock")
    assert left == ["first.json", "first.parquet"]
    file = complete_shard(tmp_path / "first.parquet")
    assert file is not None
    assert torch.equal(
        read_shard(tmp_path / "first.parquet", file.sha256), torch.ones(100, 64).half()
    )


def test_a_folder_that_takes_no_files_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ShardError, match="failed"):
        write_shard(tmp_path / "file" / "a.parquet", matrix(2, 2))


def test_of_two_captures_of_one_shard_the_first_stands(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    first = write_shard(path, torch.ones(3, 2))
    second = write_shard(path, torch.full((3, 2), 1.001))
    assert second == first
    assert torch.equal(read_shard(path, first.sha256).float(), torch.ones(3, 2))
