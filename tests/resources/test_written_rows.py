"""Rows that were deleted by hand are found in a version that still has them."""

from pathlib import Path

import pytest
from toy_table import COMMIT, PARTITION, TABLE, toys

from assets.shared.content_hash import column_versions
from assets.written_rows import rows_as_written
from resources.lake import Lake
from resources.ledger import Entry

OTHER = {**PARTITION, "fit": "other"}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def written(lake: Lake) -> Entry:
    """Three rows in the lake, as the ledger tells of them."""
    versions = {TABLE.name: column_versions(toys(3), TABLE)}
    snapshot = lake.replace({TABLE: toys(3)}, PARTITION, COMMIT)
    return Entry(
        "demo", "r", "toys", "p", "computed", "", versions=versions, data_snapshot=snapshot
    )


def end_version(lake: Lake, snapshot: int | None) -> None:
    lake.connect().execute(f"CALL ducklake_expire_snapshots('lake', versions => [{snapshot}])")


def delete(lake: Lake) -> None:
    lake.connect().execute(f"DELETE FROM {TABLE.name} WHERE feature_id = 1 AND fit = 'snmf-k004'")


def test_rows_come_from_the_version_that_wrote_them(lake: Lake) -> None:
    entry = written(lake)
    delete(lake)
    found = rows_as_written(lake, entry, [TABLE], PARTITION)
    assert found is not None and found[TABLE].equals(toys(3).select(found[TABLE].columns))


def test_where_that_one_has_ended_a_later_one_has_them(lake: Lake) -> None:
    entry = written(lake)
    lake.replace({TABLE: toys(2)}, OTHER, COMMIT)
    delete(lake)
    end_version(lake, entry.data_snapshot)
    found = rows_as_written(lake, entry, [TABLE], PARTITION)
    assert found is not None and len(found[TABLE]) == 3


def test_where_no_version_has_them_there_is_nothing_to_put_back(lake: Lake) -> None:
    entry = written(lake)
    delete(lake)
    end_version(lake, entry.data_snapshot)
    assert rows_as_written(lake, entry, [TABLE], PARTITION) is None
