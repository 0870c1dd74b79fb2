"""A column that was called otherwise keeps its rows, in the lake of before and at old versions."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from assets.shared.schema import Column, Table
from resources.lake import Lake
from resources.lake_commit import Commit
from resources.lake_tables import LakeError

PARTITION = {"site": "a"}
COMMIT = Commit(asset="toys", partition="a", run_id="run-1", fingerprint="f")
ITEM = (Column("site", "VARCHAR", "site"), Column("item", "INTEGER", "item"))


def table(*columns: Column) -> Table:
    return Table("toys", "shared", "a table for tests", (*ITEM, *columns), ("item",), ("site",))


OLD = table(Column("p", "DOUBLE", "old name", nullable=True))
NEW = table(Column("p_texts", "DOUBLE", "new name", nullable=True, formerly="p"))


def items(**values: float) -> pl.DataFrame:
    return pl.DataFrame({"item": [1], **{name: [value] for name, value in values.items()}})


def test_rows_of_before_have_the_new_name_now_and_at_the_old_version(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    before = lake.replace({OLD: items(p=0.25)}, PARTITION, COMMIT)
    lake.close()
    lake = Lake(tmp_path / "lake")
    expected = {"site": "a", "item": 1, "p_texts": 0.25}
    assert lake.read(NEW, PARTITION).to_dicts() == [expected]
    assert lake.read(NEW, PARTITION, version=before).to_dicts() == [expected]
    assert lake.snapshot_of(NEW, PARTITION) == before
    after = lake.replace({NEW: items(p_texts=0.5)}, PARTITION, COMMIT)
    assert lake.read(NEW)["p_texts"].to_list() == [0.5]
    assert lake.read(NEW, version=after - 1)["p_texts"].to_list() == [0.25]
    lake.close()


def test_of_another_type_it_is_refused_as_any_other_column(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    lake.replace({OLD: items(p=0.25)}, PARTITION, COMMIT)
    lake.close()
    other = replace(NEW.columns[-1], sql_type="VARCHAR")
    lake = Lake(tmp_path / "lake")
    with pytest.raises(LakeError, match="stored as DOUBLE, declared VARCHAR"):
        lake.read(table(other))
    assert lake.query("SELECT * FROM toys").columns == ["site", "item", "p"]
    lake.close()
