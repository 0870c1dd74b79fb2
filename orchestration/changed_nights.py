"""The sensor `changed_nights`: nights of studies whose file changed after the code was loaded.

Schedules are made when the code is loaded, and a running server does not load it again by itself.
So the sensor asks for what a file wants since then and no loaded schedule gives: at each look the
newest tick of its cron since the look before, as the same run that a schedule would ask for.
Whose nights these are is decided in night_switches.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg
from dagster._time import get_current_timestamp
from dagster._utils.schedules import get_latest_completed_cron_tick

from orchestration.night_switches import is_asked_by_schedule, is_on, switched_by_hand, times_of
from orchestration.schedules import night
from resources.night_config import NightlyConfig
from resources.study import Study
from resources.study_files import StudiesResource, schedule_name

SECONDS_BETWEEN = 30


def newest_tick(nightly: NightlyConfig, after: float, until: float) -> datetime | None:
    """The last tick of the cron in the interval (after, until] of timestamps [s]."""
    tick = get_latest_completed_cron_tick(
        nightly.cron, datetime.fromtimestamp(until, UTC), nightly.timezone
    )
    return tick if after < tick.timestamp() <= until else None


def changed_nights_sensor(
    loaded_studies: Sequence[Study], main_job: dg.JobDefinition
) -> dg.SensorDefinition:
    """The sensor beside the schedules of `loaded_studies`."""
    loaded = {study.name: study.nightly for study in loaded_studies}

    @dg.sensor(
        job=main_job,
        minimum_interval_seconds=SECONDS_BETWEEN,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for the nights that a study's file wants since the definitions were "
        "loaded: a new study, a new cron or time zone, a switch turned on.",
    )
    def changed_nights(
        context: dg.SensorEvaluationContext, studies: StudiesResource
    ) -> dg.SensorResult:
        until = get_current_timestamp()
        after = float(context.cursor or until)
        by_hand = switched_by_hand(context.instance)
        requests: list[dg.RunRequest] = []
        words: list[str] = []
        for study in studies.readable()[0]:
            filed, by_person = study.nightly, by_hand.get(schedule_name(study.name))
            if is_asked_by_schedule(filed, loaded.get(study.name), by_person):
                continue
            if not is_on(filed, by_person):
                continue
            tick = newest_tick(filed, after, until)
            if tick is None:
                words.append(f"{study.name}: {times_of(filed)} since the definitions were loaded")
                continue
            answer = night(context.instance, study.name, tick)
            if isinstance(answer, dg.RunRequest):
                requests.append(answer)
            else:
                words.append(f"{study.name}: {answer.skip_message}")
        if not requests:
            reason = "; ".join(words) or "the nights of all study files are the schedules'"
            return dg.SensorResult(skip_reason=reason, cursor=str(until))
        for line in words:
            context.log.info(line)
        return dg.SensorResult(run_requests=requests, cursor=str(until))

    return changed_nights
