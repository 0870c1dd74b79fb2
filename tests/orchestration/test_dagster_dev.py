"""`make ui` itself: `dagster dev` serves the project, runs its nights, leaves nothing behind."""

import contextlib
import os
import shlex
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from answering_endpoint import AnsweringEndpoint
from dagster_servers import BIN, environment, running, wait_for
from dagster_ui import REPOSITORY, Ui, free_port
from mini_study import write_study
from nightly_study import CALLS, NIGHTLY_STUDY
from pooled_job import PROJECT, new_home

from orchestration.run_tags import MAIN_JOB
from resources.lake import Lake

pytestmark = pytest.mark.slow
STUDY = "mini"
LOCATIONS = """
query {
  workspaceOrError {
    ... on Workspace { locationEntries { name loadStatus locationOrLoadError { __typename } } }
  }
}
"""
PARTITIONS = """
query Partitions($asset: AssetKeyInput!) {
  assetNodeOrError(assetKey: $asset) {
    ... on AssetNode { partitionKeysByDimension { name partitionKeys } }
  }
}
"""
DAEMONS = """
query { instance { daemonHealth { allDaemonStatuses {
  daemonType required healthy lastHeartbeatTime lastHeartbeatErrors { message }
} } } }
"""


def make_ui(port: int) -> list[str]:
    """The command of the Makefile's target `ui`."""
    recipe = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "ui", f"PORT={port}", f"BIN={BIN}"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    # Before it stands what would set up the project first.
    return shlex.split(recipe.stdout.splitlines()[-1])


def processes_of(home: Path) -> list[psutil.Process]:
    """What was started for this home and is still there, whoever its parent is."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("DAGSTER_HOME") == str(home):
                found.append(process)
    return found


def partitions(ui: Ui) -> dict[str, list[str]]:
    """Partition keys of the factorizations by dimension; empty until there are some."""
    node = ui.ask(PARTITIONS, asset={"path": ["factorizations"]})["assetNodeOrError"]
    dimensions = node["partitionKeysByDimension"]
    found = {one["name"]: one["partitionKeys"] for one in dimensions}
    return found if all(found.values()) else {}


def unhealthy(ui: Ui) -> list[str]:
    """The daemons that the instance needs and that don't beat; all of them at first."""
    daemons = ui.ask(DAEMONS)["instance"]["daemonHealth"]["allDaemonStatuses"]
    assert {"SCHEDULER", "SENSOR", "QUEUED_RUN_COORDINATOR"} <= {
        one["daemonType"] for one in daemons if one["required"]
    }
    assert not [one["lastHeartbeatErrors"] for one in daemons if one["lastHeartbeatErrors"]]
    return [
        one["daemonType"]
        for one in daemons
        if one["required"] and not (one["healthy"] and one["lastHeartbeatTime"])
    ]


def test_dagster_dev_serves_the_study_runs_its_night_and_ends_cleanly(
    tmp_path: Path, cache_folder: Path
) -> None:
    home, port = new_home(tmp_path), free_port()
    nightly = {"cron": "* * * * *", "switch": "on"}
    write_study(tmp_path / "studies", **NIGHTLY_STUDY, nightly=nightly)
    ui = Ui(port)
    with AnsweringEndpoint() as endpoint:
        variables = environment(
            tmp_path, cache_folder, OPENAI_BASE_URL=endpoint.url, OPENAI_API_KEY="sk-test"
        )
        command = make_ui(port)
        assert command[:2] == [str(BIN / "dagster"), "dev"]
        with running(command, variables=variables, folder=tmp_path, working_folder=PROJECT) as (
            server,
        ):
            locations = wait_for("the webserver", lambda: ui.ask(LOCATIONS), 120)
            assert locations["workspaceOrError"]["locationEntries"] == [
                {
                    "name": REPOSITORY["repositoryLocationName"],
                    "loadStatus": "LOADED",
                    "locationOrLoadError": {"__typename": "RepositoryLocation"},
                }
            ]
            wait_for("a heartbeat of each daemon", lambda: not unhealthy(ui), 120)
            assert wait_for("the study's partitions", lambda: partitions(ui), 120) == {
                "site": ["mini:smollm2-135m-instruct@L20.mlp_hidden"],
                "fit": ["pca-k004"],
            }

            (night, *_) = wait_for("a night", lambda: ui.nightly_runs(STUDY), 150)
            ui.switch_off(STUDY)
            wait_for("the end of all runs", lambda: not ui.unfinished(), 600)
            runs = ui.runs()
            assert {run["status"] for run in runs.values()} == {"SUCCESS"}, runs
            assert runs[night]["jobName"] == MAIN_JOB
            assert len(endpoint.take_requests()) == CALLS

            # As Ctrl-C in a terminal does: it goes to every process of the group.
            os.killpg(server.pid, signal.SIGINT)
            assert server.wait(timeout=120) == 0
            # Code servers end a moment after those that they served.
            wait_for("the end of every process", lambda: not processes_of(home), 60)
    log = (tmp_path / "servers.log").read_text()
    assert "Dagster services shut down." in log
    assert "did not terminate cleanly" not in log
    with contextlib.closing(Lake(tmp_path / "lake")) as lake:
        assert lake.query("SELECT count(*) FROM features").item() == 4
