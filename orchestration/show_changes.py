"""`make changes`: which features came, went, or have another label, score or status.

FROM= and TO= are snapshot ids or times (2026-11-21 09:30, in UTC); without FROM, what the last run
changed (of STUDY=, or of any study), without TO, up to now. For other programs:
resources/catalogue_changes.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

import dagster as dg
import polars as pl
from rich.console import Console
from rich.table import Table as RichTable

from orchestration.command_line import command_console, lake_that_is_there
from orchestration.run_study import open_instance
from orchestration.run_tags import MAIN_JOB, STUDY_TAG
from resources.catalogue_changes import CatalogueChanges, catalogue_changes
from resources.lake_tables import LakeError
from resources.lake_versions import parse_version
from resources.study_files import StudyError

N_SHOWN = 40


def main(variables: Mapping[str, str]) -> int:
    """Print the changes; exit status 0, also when there are none."""
    console = command_console()
    lake = lake_that_is_there(console)
    if lake is None:
        return 1
    study = variables.get("STUDY") or None
    try:
        if variables.get("FROM"):
            old = parse_version(variables["FROM"])
        else:
            old = start_of_last_run(open_instance(), study)
            # A first run began before there was a lake; its first version may have ended since.
            first = lake.snapshots().filter(snapshot_id=0)["snapshot_time"]
            old = max([old, *first])
        new = parse_version(variables["TO"]) if variables.get("TO") else None
        changes = catalogue_changes(lake, old, new, study)
    except (LakeError, StudyError) as error:
        console.print(str(error), style="red", markup=False)
        return 2
    show_changes(console, changes)
    return 0


def start_of_last_run(instance: dg.DagsterInstance, study: str | None) -> datetime:
    """When the newest main run began, of one study or of any.

    Raises StudyError where the Dagster instance knows of none.
    """
    tags = {STUDY_TAG: study} if study else {}
    records = instance.get_run_records(dg.RunsFilter(job_name=MAIN_JOB, tags=tags), limit=1)
    if not records:
        raise StudyError(
            f"no run of {study or 'any study'} is known here; say from when: make changes FROM=…"
        )
    record = records[0]
    if record.start_time is None:
        return record.create_timestamp.astimezone(UTC)
    return datetime.fromtimestamp(record.start_time, UTC)


def show_changes(console: Console, changes: CatalogueChanges) -> None:
    """Counts of each kind of change, and the first rows."""
    rows = changes.rows
    span = f"from snapshot {changes.from_snapshot} to {changes.to_snapshot}"
    if rows.is_empty():
        console.print(f"no changes {span}")
        return
    counts = rows.group_by("change", maintain_order=True).agg(
        pl.struct("site", "fit", "feature_id").n_unique().alias("n")
    )
    table = RichTable(title=f"Changes of the catalogue {span}")
    for heading in ("feature", "change", "column", "old", "new", "difference"):
        table.add_column(heading, overflow="fold")
    for row in rows.head(N_SHOWN).to_dicts():
        table.add_row(
            f"{row['site']} {row['fit']} #{row['feature_id']}",
            row["change"],
            row["column_name"],
            _short(row["old_value"]),
            _short(row["new_value"]),
            "" if row["difference"] is None else f"{row['difference']:+.3g}",
        )
    console.print(table)
    if len(rows) > N_SHOWN:
        console.print(f"… and {len(rows) - N_SHOWN} more rows")
    console.print("features " + ", ".join(f"{change} {n}" for change, n in counts.iter_rows()))


def _short(value: str | None) -> str:
    return "–" if value is None else value


if __name__ == "__main__":
    sys.exit(main(os.environ))
