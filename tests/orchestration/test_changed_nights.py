"""A nightly cron or switch that changes after the code was loaded counts without a reload."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
)
from dagster._core.test_utils import freeze_time
from mini_study import write_study

from orchestration.changed_nights import changed_nights_sensor, newest_tick
from orchestration.run_tags import MAIN_JOB
from orchestration.schedules import OP, nightly_schedules, run_config
from resources.night_config import NightlyConfig
from resources.study_files import StudiesResource, schedule_name

TWO, THREE = {"cron": "0 2 * * *"}, {"cron": "0 3 * * *"}
SWITCH_ON, SWITCH_OFF = {"switch": "on"}, {"switch": "off"}


@dg.op(name=OP, config_schema={"study": str, "within_budget": bool})
def made_elsewhere() -> None:
    pass


@dg.job(name=MAIN_JOB)
def main_job() -> None:
    made_elsewhere()


def at(time: str, day: int = 2) -> datetime:
    hour, minute, second = (int(part) for part in (time + ":00").split(":")[:3])
    return datetime(2026, 3, day, hour, minute, second, tzinfo=UTC)


@dataclass
class Server:
    """A code server with the definitions that it loaded, and the daemon that asks it."""

    root: Path
    instance: dg.DagsterInstance
    cursor: str | None = None
    runs: list[dg.DagsterRun] = field(default_factory=list)
    words: str | None = None

    def write(self, name: str = "mini", **nightly: str) -> None:
        write_study(self.root / "studies", name=name, nightly=nightly)

    @property
    def studies(self) -> StudiesResource:
        return StudiesResource(folder=str(self.root / "studies"))

    def load(self) -> None:
        studies, _ = self.studies.readable()
        self.schedules = {one.name: one for one in nightly_schedules(studies, main_job)}
        self.sensor = changed_nights_sensor(studies, main_job)

    def look(self, now: datetime) -> list[dg.DagsterRun]:
        """What the sensor asks for at that time; such runs are made, and have ended."""
        with (
            freeze_time(now),
            dg.build_sensor_context(
                self.instance, self.cursor, resources={"studies": self.studies}
            ) as context,
        ):
            answer = self.sensor.evaluate_tick(context)
        self.cursor, self.words = answer.cursor, answer.skip_message
        return self._made(answer.run_requests)

    def tick(self, time: datetime, name: str = "mini") -> list[dg.DagsterRun]:
        """What the loaded schedule asks for at its tick; such runs are made, and have ended."""
        with dg.build_schedule_context(
            self.instance, time, resources={"studies": self.studies}
        ) as context:
            answer = self.schedules[schedule_name(name)].evaluate_tick(context)
        self.words = answer.skip_message
        return self._made(answer.run_requests)

    def _made(self, requests: Any) -> list[dg.DagsterRun]:
        made = [
            self.instance.create_run_for_job(
                main_job,
                run_config=request.run_config,
                tags=request.tags,
                status=dg.DagsterRunStatus.SUCCESS,
            )
            for request in requests or ()
        ]
        self.runs += made
        return made

    def switch_in_ui(self, status: InstigatorStatus, name: str = "mini") -> None:
        """What Dagster stores when someone starts or stops the schedule."""
        repository = RemoteRepositoryOrigin(
            RegisteredCodeLocationOrigin("featurelake"), "__repository__"
        )
        state = InstigatorState(
            RemoteInstigatorOrigin(repository, schedule_name(name)),
            InstigatorType.SCHEDULE,
            status,
            ScheduleInstigatorData("0 2 * * *"),
        )
        self.instance.add_instigator_state(state)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "home").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
        yield Server(tmp_path, instance)


def test_a_switch_turned_on_after_loading_gives_each_night_exactly_once(server: Server) -> None:
    server.write(**TWO, **SWITCH_OFF)
    server.load()
    assert server.look(at("1:59")) == []
    server.write(**TWO, **SWITCH_ON)
    assert server.look(at("1:59:30")) == []
    (run,) = server.look(at("2:00:10"))
    assert run.job_name == MAIN_JOB
    assert run.run_config == run_config("mini", within_budget=True)
    assert run.tags["featurelake/study"] == "mini"
    assert server.look(at("2:00:40")) == []
    # Loaded anew, Dagster may give the newest tick again to a schedule that it knows.
    server.load()
    assert server.tick(at("2:00")) == []
    assert server.words is not None and run.run_id in server.words
    # From here on nights are the schedule's, as its own tags say.
    assert server.look(at("2:00:10", day=3)) == []
    (scheduled,) = server.tick(at("2:00", day=3))
    assert scheduled.run_config == run.run_config
    assert scheduled.tags.keys() == run.tags.keys() - {"dagster/sensor_name"}


def test_a_new_study_has_its_nights_without_a_reload(server: Server) -> None:
    server.write(**TWO)
    server.load()
    server.look(at("1:59"))
    server.write("new", **TWO, **SWITCH_ON)
    (run,) = server.look(at("2:00:10"))
    assert run.tags["featurelake/study"] == "new"
    assert server.look(at("2:00:40")) == []


@pytest.mark.parametrize("change", [THREE, {**TWO, "timezone": "Atlantic/Azores"}])
def test_a_changed_cron_or_time_zone_takes_the_place_of_the_old_one(
    server: Server, change: dict[str, str]
) -> None:
    # Azores: 2:00 there is 3:00 UTC in winter.
    server.write(**TWO, **SWITCH_ON)
    server.load()
    server.look(at("1:59"))
    server.write(**change, **SWITCH_ON)
    assert server.look(at("2:00:10")) == server.tick(at("2:00")) == []
    assert server.words is not None and change["cron"] in server.words
    assert "was loaded with '0 2 * * *' (UTC)" in server.words
    assert len(server.look(at("3:00:10"))) == 1
    assert server.look(at("3:00:40")) == []
    # Back to what was loaded, the schedule goes on by itself.
    server.write(**TWO, **SWITCH_ON)
    assert server.look(at("2:00:10", day=3)) == []
    assert len(server.tick(at("2:00", day=3))) == 1


def test_a_cron_changed_right_after_its_night_does_not_repeat_it(server: Server) -> None:
    server.write(**TWO, **SWITCH_ON)
    server.load()
    server.look(at("1:59:50"))
    (run,) = server.tick(at("2:00"))
    server.write(cron="0 2,14 * * *", switch="on")
    assert server.look(at("2:00:20")) == []
    assert server.words is not None and run.run_id in server.words
    assert len(server.look(at("14:00:20"))) == 1


def test_a_switch_turned_off_or_a_file_taken_away_ends_the_nights(server: Server) -> None:
    server.write(**TWO, **SWITCH_ON)
    server.load()
    server.look(at("1:59"))
    server.write(**TWO, **SWITCH_OFF)
    assert server.tick(at("2:00")) == server.look(at("2:00:10")) == []
    assert server.tick(at("2:00")) == [] and "switch: off" in str(server.words)
    (server.root / "studies" / "mini.yaml").unlink()
    assert server.tick(at("2:00", day=3)) == [] and "no study named 'mini'" in str(server.words)
    assert server.look(at("2:00:10", day=3)) == []


def test_nothing_changed_is_nothing_for_the_sensor(server: Server) -> None:
    server.write(**TWO, **SWITCH_ON)
    server.write("off", **TWO)
    server.load()
    for day in (2, 3):
        assert server.look(at("1:59:50", day)) == []
        assert len(server.tick(at("2:00", day))) == 1
        assert server.look(at("2:00:20", day)) == []
        assert server.words == "the nights of all study files are the schedules'"


def test_a_schedule_stopped_in_the_ui_stays_stopped(server: Server) -> None:
    server.write(**TWO, **SWITCH_ON)
    server.load()
    server.switch_in_ui(InstigatorStatus.STOPPED)
    server.look(at("1:59"))
    assert server.look(at("2:00:10")) == []
    # Another time does not start it, neither here nor when it is loaded anew.
    server.write(**THREE, **SWITCH_ON)
    assert server.look(at("3:00:10")) == []


def test_a_schedule_started_in_the_ui_goes_on_at_the_files_time(server: Server) -> None:
    server.write(**TWO, **SWITCH_OFF)
    server.load()
    server.switch_in_ui(InstigatorStatus.RUNNING)
    server.look(at("1:59"))
    assert server.look(at("2:00:10")) == []
    assert len(server.tick(at("2:00"))) == 1
    # The switch in the file says what it already does.
    server.write(**TWO, **SWITCH_ON)
    assert server.look(at("2:00:10", day=3)) == []
    assert len(server.tick(at("2:00", day=3))) == 1
    server.write(**THREE, **SWITCH_OFF)
    assert server.tick(at("2:00", day=4)) == []
    assert len(server.look(at("3:00:10", day=4))) == 1


def test_what_dagster_stores_for_the_files_own_switch_is_no_ones_hand(server: Server) -> None:
    server.write(**TWO, **SWITCH_ON)
    server.load()
    server.switch_in_ui(InstigatorStatus.DECLARED_IN_CODE)
    server.look(at("1:59"))
    assert len(server.tick(at("2:00"))) == 1
    server.write(**TWO, **SWITCH_OFF)
    assert server.tick(at("2:00", day=3)) == []
    server.write(**THREE, **SWITCH_ON)
    assert len(server.look(at("3:00:10", day=3))) == 1


def test_a_daemon_that_was_away_gets_the_newest_night_alone(server: Server) -> None:
    server.write(**TWO)
    server.load()
    server.look(at("1:00"))
    server.write(**TWO, **SWITCH_ON)
    (run,) = server.look(at("9:00", day=7))
    assert run.tags[".dagster/scheduled_execution_time"] == at("2:00", day=7).isoformat()


def test_newest_tick_is_that_of_the_interval_counted_one_by_one() -> None:
    nightly = NightlyConfig(cron="*/7 1-3 * * *", timezone="Europe/Berlin")
    midnight = at("0:00", day=29)
    minutes = [midnight + timedelta(minutes=n) for n in range(6 * 60)]
    # Its clocks go from 2:00 to 3:00 that night: the hours 1 and 3 are 0 and 1 in UTC.
    ticks = [one for one in minutes if one.hour < 2 and one.minute % 7 == 0]
    for until in minutes[30::11]:
        for seconds in (30.0, 600.0, 1800.0):
            after = until.timestamp() - seconds
            due = [one for one in ticks if after < one.timestamp() <= until.timestamp()]
            expected = due[-1] if due else None
            assert newest_tick(nightly, after, until.timestamp()) == expected
