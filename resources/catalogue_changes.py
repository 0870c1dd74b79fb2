"""`catalogue_changes` between any two versions of the lake, for notebooks and `make changes`.

What counts as a change is assets/catalogue/changes.py; the lake's own table of that name has only
the last change of each partition.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from assets.catalogue.changes import changes_between
from assets.catalogue.tables import FEATURES
from resources.lake import Lake
from resources.lake_tables import LakeError
from resources.lake_versions import find_version


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
    before, after = (lake.read(FEATURES, where, version=version) for version in (first, last))
    return CatalogueChanges(first, last, changes_between(before, after))
