"""`make ratings FILE=sheet.csv`: takes a filled-in sheet, and shows how people and judge agree.

STUDY= names the study. The sheet is checked whole; then a copy goes to the study's folder of
ratings, in the place of the same sheet of before, and the assets `human_ratings` and
`rating_agreement` are made from all sheets there. Without FILE they are only made and shown.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table as RichTable

from assets.ratings.folder import ratings_folder, take_sheet
from assets.ratings.sheet_files import SheetError
from assets.ratings.tables import RATING_AGREEMENT
from orchestration.command_line import command_console
from orchestration.definitions import build_definitions
from orchestration.folders import default_resources
from orchestration.partition_sync import sync_partitions
from orchestration.run_study import open_instance
from orchestration.run_tags import STUDY_TAG
from resources.study_files import StudyError

NO_AGREEMENT = "nothing to compare yet: no item was rated by people that a judge rated too"


def main(variables: Mapping[str, str]) -> int:
    """Take the sheet and print the agreement; exit status 2 for a sheet that is not right."""
    console = command_console()
    resources = default_resources()
    try:
        study = resources["studies"].study(variables.get("STUDY") or "demo")
        folder = ratings_folder(Path(resources["studies"].folder), study.name)
        if variables.get("FILE"):
            sheet, is_again = take_sheet(folder, Path(variables["FILE"]))
            console.print(
                f"{variables['FILE']}: {len(sheet.ratings)} ratings, {sheet.n_unrated} items not "
                f"rated{'; it takes the place of the same sheet of before' * is_again}",
                markup=False,
            )
        instance = open_instance()
    except (SheetError, StudyError) as error:
        console.print(str(error), style="red", markup=False)
        return 2
    readable, problems = resources["studies"].readable()
    sync_partitions(instance, readable, may_remove=not problems)
    result = (
        build_definitions()
        .resolve_job_def("ratings_job")
        .execute_in_process(
            instance=instance,
            partition_key=study.name,
            run_config={"loggers": {"console": {"config": {}}}},
            tags={STUDY_TAG: study.name},
            raise_on_error=False,
        )
    )
    if not result.success:
        console.print("the ratings could not be made; the log above says why", style="red")
        return 1
    rows = resources["lake"].open().read(RATING_AGREEMENT, {"study": study.name}).to_dicts()
    console.print(agreement_table(rows) if rows else NO_AGREEMENT)
    return 0


def agreement_table(rows: list[dict[str, Any]]) -> RichTable:
    """Rows of `rating_agreement`, as printed."""
    table = RichTable(
        title="Agreement of people and judge: Spearman over items, interval over features"
    )
    for heading in (
        "question",
        "first",
        "second",
        "items",
        "features",
        "raters",
        "ρ",
        "interval",
        "means",
    ):
        table.add_column(heading, overflow="fold")
    for row in rows:
        low, high = row["spearman_low"], row["spearman_high"]
        table.add_row(
            row["question"],
            row["first"],
            row["second"],
            str(row["n_items"]),
            _count(row["n_features"]),
            str(row["n_raters"]),
            _number(row["spearman"]) if row["status"] == "ok" else row["reason"],
            f"{_number(low)} to {_number(high)}" if low is not None else _no_interval(row),
            f"{_number(row['mean_first'])}, {_number(row['mean_second'])}",
        )
    return table


def _no_interval(row: dict[str, Any]) -> str:
    return row["reason"] if row["status"] == "ok" and row["reason"] else "–"


def _count(value: int | None) -> str:
    return "–" if value is None else str(value)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main(os.environ))
