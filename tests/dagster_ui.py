"""What the UI in a browser asks of Dagster: GraphQL, on a port of this machine."""

import contextlib
import json
import random
import socket
import urllib.request
from typing import Any

from resources.study_files import schedule_name

REPOSITORY = {"repositoryLocationName": "featurelake", "repositoryName": "__repository__"}
FINISHED = {"SUCCESS", "FAILURE", "CANCELED"}
# Below the ports that systems give out by themselves: no other test's server or client takes one
# between the choice and the start.
PORTS = (20_000, 30_000)
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
RUNS = (
    "query { runsOrError { ... on Runs { results { runId status jobName tags { key value } } } } }"
)
SCHEDULE = """
query Schedule($selector: ScheduleSelector!) {
  scheduleOrError(scheduleSelector: $selector) {
    ... on Schedule {
      scheduleState { id status ticks(limit: 20) { status runIds error { message } } }
    }
  }
}
"""
STOP = """
mutation Stop($id: String!) {
  stopRunningSchedule(id: $id) {
    ... on ScheduleStateResult { scheduleState { status } }
    ... on PythonError { message }
  }
}
"""


def free_port() -> int:
    """A port that nobody listens on."""
    # Not the tests' seeded numbers: two test processes would draw the same ports.
    draw = random.SystemRandom()
    while True:
        port = draw.randrange(*PORTS)
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


class Ui:
    """The GraphQL endpoint that the UI itself talks to. Asking raises OSError until it is up."""

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

    def launch(self, job: str, run_config: dict[str, Any]) -> str:
        """Launches a job; the run's id."""
        params = {
            "selector": {**REPOSITORY, "jobName": job},
            "runConfigData": run_config,
            "mode": "default",
        }
        launched = self.ask(LAUNCH, params=params)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["runId"]

    def runs(self) -> dict[str, dict[str, Any]]:
        """Every run by its id."""
        return {run["runId"]: run for run in self.ask(RUNS)["runsOrError"]["results"]}

    def unfinished(self) -> list[str]:
        """The runs that wait or go on."""
        return [run for run, row in self.runs().items() if row["status"] not in FINISHED]

    def nightly_runs(self, study: str) -> list[str]:
        """The runs that the study's schedule asked for; no tick of it may have failed."""
        ticks = self._schedule(study)["ticks"]
        assert not [tick["error"] for tick in ticks if tick["error"]]
        return [run for tick in ticks if tick["status"] == "SUCCESS" for run in tick["runIds"]]

    def switch_off(self, study: str) -> None:
        """No more nights of the study."""
        stopped = self.ask(STOP, id=self._schedule(study)["id"])["stopRunningSchedule"]
        assert stopped.get("scheduleState") == {"status": "STOPPED"}, stopped

    def _schedule(self, study: str) -> dict[str, Any]:
        selector = {**REPOSITORY, "scheduleName": schedule_name(study)}
        return self.ask(SCHEDULE, selector=selector)["scheduleOrError"]["scheduleState"]
