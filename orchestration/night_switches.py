"""Whether a study's nights are on, and who asks for them: its schedule, or the sensor beside it.

Schedules are made when the code is loaded, but a study's file may change at any time after. A
schedule asks for the nights while the file says what was loaded; the sensor (changed_nights.py)
asks for those that the file wants and no loaded schedule would give.

What was last switched in the UI stands before the file's switch, as it does in Dagster when code is
loaded anew: a stored status RUNNING or STOPPED is a person's, DECLARED_IN_CODE is the file's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorStatus

from resources.night_config import NightlyConfig

Switch: TypeAlias = Literal["on", "off"]
BY_HAND: Mapping[InstigatorStatus, Switch] = {
    InstigatorStatus.RUNNING: "on",
    InstigatorStatus.STOPPED: "off",
}


def switched_by_hand(instance: dg.DagsterInstance) -> dict[str, Switch]:
    """Schedule's name → what it was last switched to in the UI; without those never switched."""
    return {
        state.instigator_name: BY_HAND[state.status]
        for state in instance.all_instigator_state(instigator_type=InstigatorType.SCHEDULE)
        if state.status in BY_HAND
    }


def times_of(nightly: NightlyConfig) -> str:
    """When the nights are, in words; equal for equal times."""
    return f"{nightly.cron!r} ({nightly.timezone})"


def is_on(nightly: NightlyConfig, by_hand: Switch | None) -> bool:
    return (by_hand or nightly.switch) == "on"


def is_asked_by_schedule(
    filed: NightlyConfig, loaded: NightlyConfig | None, by_hand: Switch | None
) -> bool:
    """Whether the loaded schedule (None: there is none) ticks when the file says."""
    return loaded is not None and times_of(filed) == times_of(loaded) and is_on(loaded, by_hand)


def why_tick_is_void(
    filed: NightlyConfig, loaded: NightlyConfig, by_hand: Switch | None
) -> str | None:
    """Why a tick of the loaded schedule is not one of the file as it is now; None: it is."""
    if times_of(filed) != times_of(loaded):
        return (
            f"the study's file says {times_of(filed)} now, and this schedule was loaded with "
            f"{times_of(loaded)}; the sensor `changed_nights` asks for its nights until the "
            "definitions are loaded anew"
        )
    if by_hand is None and loaded.switch == "on" and filed.switch == "off":
        return "the study's file says `switch: off` now"
    return None
