"""Ends runs whose process was killed, and frees what they hold: nothing else notices.

A dead run would stay "started" for ever, and with it would stay its slot of a pool, for which every
other run waits, and its place in the queue. A run is dead when none of its steps is at work
(assets/at_work.py) and

    it runs in one process and one of its steps is dead, or
    it belongs to a main run that has ended, or
    its log has been quiet for longer than a run that lives would be.

A process killed between making a run and starting it leaves one that never begins: that is dead by
the second or third rule, its making counted as its newest event.

Looked at by every main run, at its start and while it goes on, by the daemon's sensor, and before a
nightly run is requested.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import dagster as dg

from assets.at_work import forget_steps, states_of_steps
from orchestration.run_tags import MAIN_JOB, MAIN_RUN_TAG, MAINTENANCE_JOB

# A step that waits for a pool logs it every 300 s.
QUIET_SECONDS = 900.0
# A run that ended frees its own slots a moment later.
ENDED_SECONDS = 10.0
LOOK_EVERY_SECONDS = 20.0
ONE_PROCESS_JOBS = (MAIN_JOB, MAINTENANCE_JOB)
# What is queued waits for the daemon, however long.
NOT_BEGUN = (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING)
ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
WHY = "the process of this run is gone"


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark dead runs as failed and free the slots of all that have ended; ids of the dead ones."""
    started = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING, *NOT_BEGUN],
    )
    dead = []
    # Main runs first: what belongs to a dead one is dead.
    runs = sorted(instance.get_runs(started), key=lambda run: MAIN_RUN_TAG in run.tags)
    for run in runs:
        if _is_dead(instance, run):
            instance.report_run_failed(run, WHY)
            dead.append(run.run_id)
            forget_steps(instance, run.run_id)
    _free_slots(instance, dead)
    return dead


@contextlib.contextmanager
def looking_for_dead_runs(instance: dg.DagsterInstance) -> Iterator[None]:
    """Ends dead runs now and, in a thread, every now and then: one may hold what this run needs."""
    end_dead_runs(instance)
    done = threading.Event()

    def look() -> None:
        while not done.wait(LOOK_EVERY_SECONDS):
            end_dead_runs(instance)

    thread = threading.Thread(target=look, name="dead runs", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _is_dead(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    states = states_of_steps(instance, run.run_id)
    if "at work" in states:
        return False
    if "dead" in states and run.job_name in ONE_PROCESS_JOBS:
        return True
    main_run_id = run.tags.get(MAIN_RUN_TAG)
    if main_run_id is not None:
        main_run = instance.get_run_by_id(main_run_id)
        return main_run is None or main_run.status in ENDED
    return time.time() - _last_event_at(instance, run) > QUIET_SECONDS


def _last_event_at(instance: dg.DagsterInstance, run: dg.DagsterRun) -> float:
    """Time of a run's newest event, or of its making where there is none yet."""
    events = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
    if events:
        return events[0].timestamp
    record = instance.get_run_record_by_id(run.run_id)
    return time.time() if record is None else record.create_timestamp.timestamp()


def _free_slots(instance: dg.DagsterInstance, dead: list[str]) -> None:
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return
    for run_id in storage.get_concurrency_run_ids():
        record = instance.get_run_record_by_id(run_id)
        has_ended = record is None or (
            record.dagster_run.status in ENDED
            and time.time() - (record.end_time or 0.0) > ENDED_SECONDS
        )
        if has_ended or run_id in dead:
            storage.free_concurrency_slots_for_run(run_id)
