"""The lake keeps what it had: snapshots, time travel, refused writes, processes at once."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import resources.lake
from assets.shared.schema import FEATURE_ID, FIT, SITE, Column, SchemaError, Table, status_columns
from resources.lake import Lake, open_lake
from resources.lake_commit import Commit
from resources.lake_tables import LakeError

TABLE = Table(
    name="toys",
    stage="shared",
    description="a table for tests",
    columns=(
        SITE,
        FIT,
        FEATURE_ID,
        Column("weights", "FLOAT[]", "a list"),
        Column("share", "DOUBLE", "bounded", nullable=True, minimum=0.0, maximum=1.0),
        *status_columns("ok, failed"),
    ),
    key=("site", "fit", "feature_id"),
    partition_by=("site", "fit"),
)
PARTITION = {"site": "demo:model@L15.mlp_hidden", "fit": "snmf-k004"}
COMMIT = Commit(asset="toys", partition="p", run_id="run-1", fingerprint="f")


def toys(n_rows: int = 3, share: float | None = 0.5) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "feature_id": list(range(n_rows)),
            "weights": [[float(i), -1.0] for i in range(n_rows)],
            "share": [share] * n_rows,
            "status": ["ok"] * n_rows,
            "reason": [None] * n_rows,
        },
        schema_overrides={"reason": pl.String, "share": pl.Float64},
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def test_each_write_is_one_snapshot_with_its_commit_details(lake: Lake) -> None:
    first = lake.replace({TABLE: toys(3)}, PARTITION, COMMIT)
    second = lake.replace({TABLE: toys(2)}, PARTITION, COMMIT)
    assert second == first + 1
    newest = lake.snapshots().row(0, named=True)
    assert newest["snapshot_id"] == second
    assert json.loads(newest["commit_extra_info"]) == {
        "asset": "toys",
        "partition": "p",
        "run_id": "run-1",
        "fingerprint": "f",
    }


def test_time_travel_reads_what_was(lake: Lake) -> None:
    first = lake.replace({TABLE: toys(3)}, PARTITION, COMMIT)
    lake.replace({TABLE: toys(1)}, PARTITION, COMMIT)
    assert len(lake.read(TABLE)) == 1
    assert len(lake.read(TABLE, version=first)) == 3
    assert lake.query(f"SELECT count(*) FROM toys AT (VERSION => {first})").item() == 3


def test_the_snapshot_that_wrote_a_partition_is_known(lake: Lake) -> None:
    a, b = PARTITION, {**PARTITION, "fit": "pca-k004"}
    assert lake.snapshot_of(TABLE, a) is None
    first = lake.replace({TABLE: toys()}, a, COMMIT)
    second = lake.replace({TABLE: toys(2)}, b, COMMIT)
    assert (lake.snapshot_of(TABLE, a), lake.snapshot_of(TABLE, b)) == (first, second)
    third = lake.replace({TABLE: toys(1)}, a, COMMIT)
    assert (lake.snapshot_of(TABLE, a), lake.snapshot_of(TABLE, b)) == (third, second)
    assert (lake.count(TABLE), lake.count(TABLE, a), lake.count(TABLE, b)) == (3, 1, 2)


def test_a_partition_is_replaced_and_the_others_stay(lake: Lake) -> None:
    other = {**PARTITION, "fit": "pca-k004"}
    lake.replace({TABLE: toys(3)}, PARTITION, COMMIT)
    lake.replace({TABLE: toys(2)}, other, COMMIT)
    lake.replace({TABLE: toys(0)}, PARTITION, COMMIT)
    assert lake.read(TABLE, PARTITION).is_empty()
    kept = lake.read(TABLE, other)
    assert kept["feature_id"].to_list() == [0, 1]
    assert kept["weights"].to_list() == [[0.0, -1.0], [1.0, -1.0]]
    assert kept["site"].unique().to_list() == [PARTITION["site"]]


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (toys().with_columns(extra=pl.lit(1)), r"undeclared columns \['extra'\]"),
        (toys().drop("weights"), r"missing columns \['weights'\]"),
        (toys().with_columns(status=pl.lit(None, pl.String)), "column status: 3 NULL"),
        (toys(share=1.5), "values above 1.0"),
        (toys(share=float("nan")), "NaN"),
        (toys().with_columns(feature_id=pl.lit(0)), "2 rows repeat a key"),
        (toys().with_columns(feature_id=pl.lit("x")), "conversion"),
    ],
)
def test_a_frame_that_does_not_fit_is_refused_and_nothing_is_lost(
    lake: Lake, frame: pl.DataFrame, complaint: str
) -> None:
    before = lake.replace({TABLE: toys(3)}, PARTITION, COMMIT)
    with pytest.raises(SchemaError, match=complaint):
        lake.replace({TABLE: frame}, PARTITION, COMMIT)
    assert len(lake.read(TABLE)) == 3
    assert lake.snapshots()["snapshot_id"].max() == before


def test_one_bad_frame_of_two_commits_neither(lake: Lake) -> None:
    other = Table("others", "shared", "x", TABLE.columns, TABLE.key, TABLE.partition_by)
    with pytest.raises(SchemaError):
        lake.replace({TABLE: toys(), other: toys(share=7.0)}, PARTITION, COMMIT)
    assert lake.read(TABLE).is_empty()


def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    Lake(root).replace({TABLE: toys(3)}, PARTITION, COMMIT)
    # A file-size limit makes the kernel refuse the write, as a full disk does.
    script = (
        "import resource, signal, sys\n"
        f"sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path.cwd())!r}]\n"
        "import test_lake as t\n"
        "import polars as pl\n"
        f"lake = t.Lake(t.Path({str(root)!r}))\n"
        "lake.read(t.TABLE)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "big = t.toys(60000)\n"
        "big = big.with_columns(weights=pl.lit([float(i) for i in range(9)]), "
        "reason=pl.col('feature_id').hash().cast(pl.String))\n"
        "try:\n"
        "    lake.replace({t.TABLE: big}, t.PARTITION, t.COMMIT)\n"
        "except t.LakeError as error:\n"
        "    sys.stderr.write(str(error))\n"
        "    sys.exit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    assert "Free space on the disk" in done.stderr
    assert len(Lake(root).read(TABLE)) == 3


def _write_many(root: str, worker: int, n_writes: int) -> None:
    lake = Lake(Path(root))
    for i in range(n_writes):
        partition = {"site": f"s{worker}", "fit": f"f{i % 2}"}
        lake.replace({TABLE: toys(2 + i)}, partition, COMMIT)


def test_processes_at_once_lose_no_commit(tmp_path: Path) -> None:
    root = str(tmp_path / "lake")
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_write_many, args=(root, w, 6)) for w in range(3)]
    for worker in workers:
        worker.start()
    reader = Lake(Path(root))
    counts = []
    while any(worker.is_alive() for worker in workers):
        counts.append(len(reader.read(TABLE, {"site": "s0"})))
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    commits = reader.snapshots().filter(pl.col("author") == "featurelake")
    assert len(commits) == 18
    assert len(reader.read(TABLE)) == 3 * (6 + 7)
    assert counts == sorted(counts) or set(counts) <= {0, 2, 5, 7, 9, 11, 13}


def test_a_writer_killed_half_way_leaves_the_lake_as_it_was(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    Lake(root).replace({TABLE: toys(3)}, PARTITION, COMMIT)
    script = (
        "import os, signal, sys\n"
        f"sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path.cwd())!r}]\n"
        "import test_lake as t\n"
        f"lake = t.Lake(t.Path({str(root)!r}))\n"
        "t.Lake._commit = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "lake.replace({t.TABLE: t.toys(9)}, t.PARTITION, t.COMMIT)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    lake = Lake(root)
    assert len(lake.read(TABLE)) == 3
    lake.replace({TABLE: toys(4)}, PARTITION, COMMIT)
    assert len(lake.read(TABLE)) == 4


def test_a_declaration_that_gained_a_nullable_column_keeps_old_rows(lake: Lake) -> None:
    lake.replace({TABLE: toys(2)}, PARTITION, COMMIT)
    grown = Table(
        TABLE.name,
        TABLE.stage,
        TABLE.description,
        (*TABLE.columns, Column("added", "VARCHAR", "new", nullable=True)),
        TABLE.key,
        TABLE.partition_by,
    )
    reopened = Lake(lake.root)
    assert reopened.read(grown)["added"].to_list() == [None, None]
    retyped = Table(
        TABLE.name,
        TABLE.stage,
        TABLE.description,
        tuple(
            Column(c.name, "VARCHAR", "x", nullable=True) if c.name == "share" else c
            for c in grown.columns
        ),
        TABLE.key,
        TABLE.partition_by,
    )
    with pytest.raises(LakeError, match="stored as DOUBLE, declared VARCHAR"):
        Lake(lake.root).read(retyped)


def test_a_read_only_client_attaches_by_the_printed_statements(lake: Lake) -> None:
    import duckdb

    lake.replace({TABLE: toys(3)}, PARTITION, COMMIT)
    client = duckdb.connect()
    for statement in lake.attach_statements(read_only=True):
        client.execute(statement)
    assert client.execute("SELECT count(*) FROM toys").fetchone() == (3,)
    with pytest.raises(duckdb.Error, match="read-only"):
        client.execute("DELETE FROM toys")


def test_column_descriptions_are_in_the_lake(lake: Lake) -> None:
    lake.ensure_tables([TABLE])
    comments = dict(
        lake.query(
            "SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 'toys'"
        ).iter_rows()
    )
    assert comments["weights"] == "a list"


def test_one_lake_a_folder_in_a_process(tmp_path: Path) -> None:
    assert open_lake(tmp_path / "a") is open_lake(tmp_path / "x" / ".." / "a")
    assert os.path.isabs(open_lake(tmp_path / "a").root)


def test_an_interrupt_after_the_commit_loses_nothing(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(resources.lake, "newest_snapshot", interrupted)
        with pytest.raises(KeyboardInterrupt):
            lake.replace({TABLE: toys(3)}, PARTITION, COMMIT)
    assert len(lake.read(TABLE)) == 3
    lake.replace({TABLE: toys(2)}, PARTITION, COMMIT)
    assert len(lake.read(TABLE)) == 2
