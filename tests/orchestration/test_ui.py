"""Webserver and daemon on loopback: a job launched as the UI does, and a schedule that ticks."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mini_study import write_study

from orchestration.schedules import run_config
from resources.lake import Lake

pytestmark = pytest.mark.slow
PROJECT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SELECTOR = {
    "repositoryLocationName": "featurelake",
    "repositoryName": "__repository__",
}
LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
RUN = "query Run($id: ID!) { runOrError(runId: $id) { ... on Run { status jobName } } }"
SCHEDULE = """
query Ticks($selector: ScheduleSelector!) {
  scheduleOrError(scheduleSelector: $selector) {
    __typename
    ... on Schedule {
      scheduleState { status ticks(limit: 5) { status runIds error { message } } }
    }
  }
}
"""
RUNS = (
    "query { runsOrError { ... on Runs { results { runId status jobName tags { key value } } } } }"
)


class Ui:
    """The GraphQL endpoint that the UI itself talks to."""

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}/graphql"

    def ask(self, query: str, **variables: Any) -> Any:
        request = urllib.request.Request(
            self._address,
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        return answer["data"]


def wait_for(what: str, probe: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := probe():
                return found
        except OSError:
            pass
        time.sleep(1.0)
    raise AssertionError(f"{what}: not seen in {seconds:.0f} s")


@pytest.fixture
def ui(tmp_path: Path, cache_folder: Path) -> Iterator[tuple[Ui, Path]]:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(PROJECT / "orchestration" / "dagster.yaml", home)
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
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "FEATURELAKE_LAKE": str(tmp_path / "lake"),
        "FEATURELAKE_STUDIES": str(tmp_path / "studies"),
        "FEATURELAKE_CACHE": str(cache_folder),
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workspace = ["-w", str(PROJECT / "workspace.yaml")]
    commands = [
        [BIN / "dagster-webserver", *workspace, "-h", "127.0.0.1", "-p", str(port)],
        [BIN / "dagster-daemon", "run", *workspace],
    ]
    with (tmp_path / "servers.log").open("wb") as log:
        # From another folder than the project's, as a user may.
        servers = [
            subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
            for command in commands
        ]
        try:
            yield Ui(port), tmp_path
        finally:
            for server in servers:
                server.terminate()
            for server in servers:
                server.wait(timeout=60)


def test_a_job_launched_in_the_ui_succeeds_and_the_schedule_ticks(ui: tuple[Ui, Path]) -> None:
    client, folder = ui
    wait_for("the webserver", lambda: client.ask("query { version }"), 90)
    launched = client.ask(
        LAUNCH,
        params={
            "selector": {**SELECTOR, "jobName": "materialize_study"},
            "runConfigData": run_config("mini"),
            "mode": "default",
        },
    )["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id = launched["run"]["runId"]

    def finished() -> str | None:
        status = client.ask(RUN, id=run_id)["runOrError"]["status"]
        return status if status in ("SUCCESS", "FAILURE", "CANCELED") else None

    assert wait_for("the run's end", finished, 480) == "SUCCESS"
    lake = Lake(folder / "lake")
    assert lake.query("SELECT count(*) FROM features").item() == 4

    def ticked() -> list[str]:
        state = client.ask(SCHEDULE, selector={**SELECTOR, "scheduleName": "nightly_mini"})
        ticks = state["scheduleOrError"]["scheduleState"]["ticks"]
        assert not [tick["error"] for tick in ticks if tick["error"]]
        return [run for tick in ticks if tick["status"] == "SUCCESS" for run in tick["runIds"]]

    scheduled = set(wait_for("a tick of the schedule", ticked, 120))
    runs = {run["runId"]: run for run in client.ask(RUNS)["runsOrError"]["results"]}
    assert {runs[run]["jobName"] for run in scheduled} == {"materialize_study"}
    children = [run for run in runs.values() if run["jobName"] == "features_job"]
    assert children and {"key": "featurelake/study", "value": "mini"} in children[0]["tags"]
