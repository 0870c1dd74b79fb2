"""Every declared table can be read as it was, by version and by time, also before it grew."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from any_rows import any_rows

from assets.shared.schema import Table
from orchestration.data_dictionary import all_tables
from resources.lake import Lake
from resources.lake_commit import Commit
from resources.lake_tables import LakeError
from resources.lake_versions import parse_version

COMMIT = Commit("a table", "a partition", "run")
TABLES = {table.name: table for table in all_tables()}


@pytest.fixture(scope="module")
def lakes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lake, Lake]]:
    """One lake, opened by an earlier release and by this one; shared by all tables, since other
    tables' snapshots must make no difference.
    """
    root = tmp_path_factory.mktemp("versions") / "lake"
    lakes = Lake(root), Lake(root)
    lakes[0].connect().close()
    yield lakes
    for lake in lakes:
        lake.close()


@pytest.fixture
def lake(lakes: tuple[Lake, Lake]) -> Lake:
    return lakes[1]


def partition_of(table: Table, value: str = "x") -> dict[str, str]:
    return dict.fromkeys(table.partition_by, value)


def when(lake: Lake, snapshot: int) -> datetime:
    return lake.snapshots().filter(snapshot_id=snapshot)["snapshot_time"].item()


def without_its_last_column(table: Table) -> tuple[Table, str | None]:
    """The table as it might have been before its last nullable column was declared."""
    late = [c.name for c in table.columns if c.nullable and c.name not in table.key][-1:]
    columns = tuple(c for c in table.columns if c.name not in late)
    earlier = Table(
        table.name, table.stage, table.description, columns, table.key, table.partition_by
    )
    return earlier, late[0] if late else None


@pytest.mark.parametrize("name", TABLES)
def test_a_table_reads_as_it_was_by_version_and_by_time_also_before_it_grew(
    lakes: tuple[Lake, Lake], name: str
) -> None:
    before, lake = lakes
    table = TABLES[name]
    before_it_was = int(before.snapshots()["snapshot_id"].max())
    earlier, late = without_its_last_column(table)
    history: dict[int, pl.DataFrame] = {}
    for seed, (writer, declared) in enumerate(((before, earlier), (lake, table), (lake, table))):
        partition = partition_of(table, "y" if seed == 1 else "x")
        rows = any_rows(declared, 3 + seed, seed)
        version = writer.replace({declared: rows}, partition, COMMIT)
        history[version] = writer.read(declared)
    if set(table.key) > set(table.partition_by):
        assert [len(frame) for frame in history.values()] == [3, 7, 9]
    assert late is None or late not in next(iter(history.values())).columns
    for version, rows in history.items():
        expected = rows
        if late is not None and late not in rows.columns:
            nulls = pl.lit(None, table.empty().schema[late]).alias(late)
            expected = rows.with_columns(nulls).select(table.column_names)
        at = when(lake, version)
        assert lake.read(table, version=version).equals(expected)
        assert lake.read(table, timestamp=at).equals(expected)
        mine = partition_of(table)
        assert lake.read(table, mine, version=version).equals(expected.filter(**mine))
        for sql in (f"VERSION => {version}", f"TIMESTAMP => TIMESTAMPTZ '{at.isoformat()}'"):
            found = lake.query(f'SELECT * FROM "{name}" AT ({sql})')
            assert found.select(rows.columns).sort(table.key).equals(rows.sort(table.key))
    previous = list(history.values())[-2]
    just_before = when(lake, version) - timedelta(microseconds=1)
    assert lake.read(table, timestamp=just_before).equals(previous)
    missing = lake.read(table, version=before_it_was)
    assert missing.is_empty() and missing.schema == table.empty().schema


def test_a_version_that_is_not_held_is_named_with_those_that_are(lake: Lake) -> None:
    table = TABLES["features"]
    newest = lake.replace({table: any_rows(table, 1, 0)}, partition_of(table), COMMIT)
    with pytest.raises(LakeError, match=rf"no version {newest + 1}.*from 0 .* to {newest}"):
        lake.read(table, version=newest + 1)
    with pytest.raises(LakeError, match="no version of 1999"):
        lake.read(table, timestamp=datetime(1999, 1, 1, tzinfo=UTC))
    with pytest.raises(LakeError, match="has no zone"):
        lake.read(table, timestamp=datetime(2030, 1, 1))
    with pytest.raises(LakeError, match="give one"):
        lake.read(table, version=newest, timestamp=datetime(2030, 1, 1, tzinfo=UTC))


def test_versions_are_given_as_ids_or_times_in_utc() -> None:
    assert parse_version("12") == 12
    assert parse_version("2026-11-21 09:30") == datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
    assert parse_version("2026-11-21T09:30+02:00") == datetime(2026, 11, 21, 7, 30, tzinfo=UTC)
    with pytest.raises(LakeError, match="'yesterday' is neither a snapshot id"):
        parse_version("yesterday")
