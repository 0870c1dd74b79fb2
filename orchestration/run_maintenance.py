"""`make maintain`: what maintenance would remove; `make maintain APPLY=1` removes it.

Other settings: KEEP_DAYS, KEEP_RUNS, KEEP_VERSIONS (a list like 12,57), SAFE_HOURS. With APPLY it
is a run of the job `maintenance` on the Dagster instance, like one launched in the UI.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from rich.table import Table as RichTable

from orchestration.command_line import command_console, lake_that_is_there
from orchestration.definitions import defs
from orchestration.maintenance import (
    MaintenanceConfig,
    larger_runs,
    maintenance_run_config,
    report_rows,
)
from orchestration.run_study import open_instance
from orchestration.run_tags import IN_UI_TAGS, MAINTENANCE_JOB
from resources.lake_tables import LakeError
from resources.maintenance import maintain
from resources.retention import Retention
from resources.study_files import StudyError

VARIABLES = ("KEEP_DAYS", "KEEP_RUNS", "KEEP_VERSIONS", "SAFE_HOURS")


def settings_of(variables: Mapping[str, str]) -> dict[str, Any]:
    """Settings of Retention that `make` hands over.

    Raises ValidationError for wrong ones, LakeError for KEEP_LAST, which make would pass over.
    """
    if last := variables.get("KEEP_LAST"):
        raise LakeError(
            f"KEEP_LAST={last} counted snapshots, of which a run writes many, and is gone; to keep "
            "the last version of each of so many newest runs, give KEEP_RUNS="
        )
    given: dict[str, Any] = {
        name.lower(): variables[name] for name in VARIABLES if variables.get(name)
    }
    if "keep_versions" in given:
        given["keep_versions"] = given["keep_versions"].replace(",", " ").split()
    chosen = Retention.model_validate(given)
    return chosen.model_dump(mode="json", include=set(given))


def main(variables: Mapping[str, str]) -> int:
    """Run maintenance; exit status 0 when it went through."""
    console = command_console()
    lake = lake_that_is_there(console)
    if lake is None:
        return 1
    try:
        settings = settings_of(variables)
        if variables.get("APPLY") == "1":
            result = defs.resolve_job_def(MAINTENANCE_JOB).execute_in_process(
                instance=open_instance(),
                run_config={
                    **maintenance_run_config(apply=True, **settings),
                    "loggers": {"console": {"config": {}}},
                },
                tags=IN_UI_TAGS,
                raise_on_error=False,
            )
            return 0 if result.success else 1
        instance = open_instance()
        report = maintain(
            lake,
            MaintenanceConfig(**settings).retention(),
            larger_runs=lambda run_ids: larger_runs(instance, run_ids),
        )
    except (LakeError, StudyError, ValidationError) as error:
        console.print(str(error), style="red", markup=False)
        return 2
    table = RichTable(title=f"What maintenance of {lake.root} would do")
    for heading in ("what", "how many", "size", "note"):
        table.add_column(heading, justify="right" if heading in ("how many", "size") else "left")
    for row in report_rows(report):
        table.add_row(*row)
    console.print(table)
    console.print("Nothing was changed; make maintain APPLY=1 does it.", markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main(os.environ))
