"""What a study no longer names leaves the gold view: `features`, and the comparison of its fits.

The rows go in one snapshot a partition, with `lost` rows in `catalogue_changes` and a ledger row
`removed`. Older versions keep them, and what they were joined from (labels, texts, scores) stays as
it is: a layer, rank or study that comes back is joined again without being made again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import polars as pl

from assets.catalogue.changes import partition_changes
from assets.catalogue.definitions import RECIPE as CATALOGUE
from assets.catalogue.tables import CATALOGUE_CHANGES, FEATURES
from assets.comparison.definitions import RECIPE as COMPARISON
from assets.ledger.tables import RUN_LEDGER
from assets.recipe import partition_text
from assets.shared.schema import Table
from orchestration.recipes import specs_of
from resources.lake_commit import Commit
from resources.ledger import Entry, Ledger, ledger_frame
from resources.study import Study

GOLD = (CATALOGUE.name, COMPARISON.name)
REMOVED, REASON = "removed", "its study names it no more"


def unnamed(
    states: Mapping[tuple[str, str], Entry], studies: Iterable[Study], of: Collection[str]
) -> list[Entry]:
    """Gold partitions of the studies called `of` that none of `studies` names any more."""
    named = {partition_text(spec) for study in studies for spec in specs_of(study)}
    return [
        entry
        for (asset, partition), entry in states.items()
        if asset in GOLD
        and entry.study in of
        and entry.decision != REMOVED
        and partition not in named
    ]


def leave_gold_view(ledger: Ledger, entry: Entry, run_id: str) -> int:
    """Take one partition's rows out of the gold tables; how many there were."""
    lake = ledger.lake
    site, _, fit = entry.partition.partition(" | ")
    partition = {"site": site, "fit": fit} if fit else {"site": site}
    tables = CATALOGUE.tables if entry.asset == CATALOGUE.name else COMPARISON.tables
    where = {name: partition[name] for name in tables[0].partition_by}
    frames = {table: table.empty().drop(table.partition_by) for table in tables}
    n_rows = sum(lake.count(table, where) for table in tables if table != CATALOGUE_CHANGES)
    if entry.asset == CATALOGUE.name:
        frames[CATALOGUE_CHANGES] = partition_changes(
            lake.read(FEATURES, where),
            FEATURES.empty(),
            lake.snapshot_of(FEATURES, where),
            lake.read(CATALOGUE_CHANGES, where),
        )
    removed = replace(
        entry.made_invalid(run_id, REMOVED, REASON), versions={}, rows_in=n_rows, rows_out=0
    )

    def ledger_rows(snapshot: int) -> dict[Table, pl.DataFrame]:
        return {RUN_LEDGER: ledger_frame([replace(removed, data_snapshot=snapshot)])}

    lake.replace(
        frames,
        partition,
        Commit(", ".join(table.name for table in tables), entry.partition, run_id),
        appended=ledger_rows,
    )
    return n_rows
