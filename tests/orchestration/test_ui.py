"""Webserver and daemon on loopback: a job launched as the UI does, and a schedule that ticks."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster_servers import (
    BIN,
    WORKSPACE,
    daemon,
    environment,
    instance_at,
    running,
    wait_for,
)
from dagster_ui import FINISHED, Ui, free_port
from mini_study import write_study
from pooled_job import new_home

from orchestration.run_tags import MAIN_JOB
from orchestration.schedules import run_config
from resources.lake import Lake

pytestmark = pytest.mark.slow


@pytest.fixture
def ui(tmp_path: Path, cache_folder: Path) -> Iterator[tuple[Ui, Path]]:
    new_home(tmp_path)
    write_study(
        tmp_path / "studies",
        fits=[{"method": "snmf", "rank": 4, "max_iter": 5}],
        corpus={
            "path": "bundled:concepts",
            "concepts": ["Monday", "SQL", "sushi"],
            "max_documents_per_concept": 8,
        },
        labels={"max_features": 1, "n_held_out": 1},
        nightly={"cron": "* * * * *", "switch": "on"},
    )
    port = free_port()
    webserver = [str(BIN / "dagster-webserver"), *WORKSPACE, "-h", "127.0.0.1", "-p", str(port)]
    # Servers that make the instance's databases at the same time break them.
    with instance_at(tmp_path):
        pass
    # From another folder than the project's, as a user may.
    with running(
        webserver, daemon(), variables=environment(tmp_path, cache_folder), folder=tmp_path
    ):
        yield Ui(port), tmp_path


def test_a_job_launched_in_the_ui_succeeds_and_the_schedule_ticks(ui: tuple[Ui, Path]) -> None:
    client, folder = ui
    wait_for("the webserver", lambda: client.ask("query { version }"), 90)
    run_id = client.launch(MAIN_JOB, run_config("mini"))

    def finished() -> str | None:
        status = client.runs()[run_id]["status"]
        return status if status in FINISHED else None

    assert wait_for("the run's end", finished, 480) == "SUCCESS"
    lake = Lake(folder / "lake")
    assert lake.query("SELECT count(*) FROM features").item() == 4

    scheduled = wait_for("a tick of the schedule", lambda: client.nightly_runs("mini"), 120)
    runs = client.runs()
    assert {runs[run]["jobName"] for run in scheduled} == {MAIN_JOB}
    children = [run for run in runs.values() if run["jobName"] == "features_job"]
    assert children and {"key": "featurelake/study", "value": "mini"} in children[0]["tags"]
