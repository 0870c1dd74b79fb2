"""`catalogue_changes` between any two versions of the lake, for notebooks and `make changes`.

What counts as a change is assets/catalogue/changes.py; the lake's own table of that name has only
the last change of each partition. Rows that were written before `features` got a column have NULL
there ever since, also at versions that have the column. So the snapshot that wrote a partition, not
the version that it is read at, says which columns its rows have.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from assets.catalogue.changes import changes_between, in_order
from assets.catalogue.tables import FEATURES
from resources.lake import Lake
from resources.lake_tables import LakeError
from resources.lake_versions import find_version
from resources.retention import METADATA


@dataclass(frozen=True)
class CatalogueChanges:
    """What changed from one snapshot to another; `rows` as changes_between gives them."""

    from_snapshot: int
    to_snapshot: int
    rows: pl.DataFrame


def catalogue_changes(
    lake: Lake,
    old: int | datetime,
    new: int | datetime | None = None,
    study: str | None = None,
) -> CatalogueChanges:
    """Changes of `features` from version `old` (snapshot id or time) to `new` (None: now).

    Only of one study's features, with `study`. Raises LakeError where the lake does not hold a
    version, or `new` is before `old`.
    """
    lake.ensure_tables([FEATURES])
    with contextlib.closing(lake.connect()) as cursor:
        first, last = find_version(cursor, old), find_version(cursor, new)
    if last < first:
        raise LakeError(f"found changes from {first} to {last}, which is before; swap the two")
    where = {"study": study} if study is not None else {}
    after = lake.read(FEATURES, where, version=last)
    parts = []
    for before in features_as_written(lake, where, version=first):
        names = before.select("site", "fit").unique()
        parts.append(changes_between(before, after.join(names, on=["site", "fit"], how="semi")))
        after = after.join(names, on=["site", "fit"], how="anti")
    parts.append(changes_between(FEATURES.empty(), after))
    return CatalogueChanges(first, last, in_order(pl.concat(parts)))


def features_as_written(
    lake: Lake, where: Mapping[str, str], version: int | None = None
) -> Iterator[pl.DataFrame]:
    """Rows of `features` at a version (None: now), without columns that came after they were.

    One frame for each set of partitions whose rows have the same columns; none for no rows.
    """
    rows = lake.read(FEATURES, where, version=version)
    if rows.is_empty():
        return
    since = lake.query(
        f"""
        SELECT column_name, min(begin_snapshot) AS since FROM {METADATA}.ducklake_column
        JOIN (SELECT table_id FROM {METADATA}.ducklake_table
              WHERE table_name = ? AND end_snapshot IS NULL) USING (table_id)
        WHERE parent_column IS NULL GROUP BY column_name
        """,
        [FEATURES.name],
    )
    at = "" if version is None else f"AT (VERSION => {version})"
    # DuckLake keeps with every row, as a virtual column, the snapshot that wrote it.
    written = lake.query(
        f'SELECT site, fit, max(snapshot_id) AS written FROM "{FEATURES.name}" {at} GROUP BY ALL'
    )
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for site, fit, snapshot in written.iter_rows():
        came_later = set(since.filter(pl.col("since") > snapshot)["column_name"])
        columns = tuple(name for name in FEATURES.column_names if name not in came_later)
        groups.setdefault(columns, []).append({"site": site, "fit": fit})
    for columns, partitions in groups.items():
        found = rows.join(pl.DataFrame(partitions), on=["site", "fit"], how="semi")
        if not found.is_empty():
            yield found.select(columns)
