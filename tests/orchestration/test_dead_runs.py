"""Runs whose process is gone are ended; those that live, wait or just begin are left alone."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from pooled_job import POOL, new_home, pooled_job

from assets.at_work import FOLDER, at_work, states_of_steps
from orchestration import dead_runs
from orchestration.dead_runs import end_dead_runs
from orchestration.run_tags import MAIN_JOB, MAIN_RUN_TAG, STUDY_TAG
from orchestration.schedules import OP, run_config, unfinished_runs

STARTED = dg.DagsterRunStatus.STARTED


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(new_home(tmp_path))) as instance:
        yield instance


def started(instance: dg.DagsterInstance, job: str = "pooled", **tags: str) -> str:
    """A run that an executor would take for one at work; its id."""

    @dg.job(name=job)
    def other() -> None:
        pass

    definition = pooled_job() if job == "pooled" else other
    run = instance.create_run_for_job(definition, tags=tags, status=STARTED)
    instance.report_engine_event("began", run)
    return run.run_id


def leave_mark(instance: dg.DagsterInstance, run_id: str) -> Path:
    """What a step leaves whose process is killed."""
    folder = Path(instance.root_directory) / FOLDER
    folder.mkdir(exist_ok=True)
    mark = folder / f"{run_id}.step.mark"
    mark.touch()
    return mark


def test_a_killed_main_run_is_ended_with_what_it_made(instance: dg.DagsterInstance) -> None:
    main = started(instance, MAIN_JOB)
    child = started(instance, **{MAIN_RUN_TAG: main})
    mark = leave_mark(instance, main)
    assert set(end_dead_runs(instance)) == {main, child}
    for run_id in (main, child):
        run = instance.get_run_by_id(run_id)
        assert run is not None and run.status == dg.DagsterRunStatus.FAILURE
    assert not mark.exists()
    assert end_dead_runs(instance) == []


def test_runs_at_work_and_those_that_begin_or_wait_are_left(instance: dg.DagsterInstance) -> None:
    main = started(instance, MAIN_JOB)
    child = started(instance, **{MAIN_RUN_TAG: main})
    begins, waits = started(instance, MAIN_JOB), started(instance)
    with at_work(instance, main, MAIN_JOB):
        assert states_of_steps(instance, main) == ["at work"]
        assert end_dead_runs(instance) == []
    assert states_of_steps(instance, main) == []
    assert end_dead_runs(instance) == []  # it ended by itself, and will say so
    for run_id in (main, child, begins, waits):
        run = instance.get_run_by_id(run_id)
        assert run is not None and run.status == STARTED
    assert list((Path(instance.root_directory) / FOLDER).iterdir()) == []


def test_a_step_process_that_died_does_not_end_its_run_at_once(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of several processes goes on without one of them; a quiet one has ended."""
    run_id = started(instance)
    leave_mark(instance, run_id)
    assert end_dead_runs(instance) == []
    monkeypatch.setattr(dead_runs, "QUIET_SECONDS", -1.0)
    with at_work(instance, run_id, "another_step"):
        assert end_dead_runs(instance) == []
    assert end_dead_runs(instance) == [run_id]


@pytest.mark.parametrize("how", ["dead", "ended", "deleted"])
def test_slots_of_runs_that_are_gone_are_free_again(
    instance: dg.DagsterInstance, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = instance.event_log_storage
    storage.initialize_concurrency_limit_to_default(POOL)
    run_id = started(instance, MAIN_JOB)
    assert storage.claim_concurrency_slot(POOL, run_id, "step").is_claimed
    assert not storage.claim_concurrency_slot(POOL, "waiting", "step").is_claimed
    monkeypatch.setattr(dead_runs, "ENDED_SECONDS", -1.0)
    if how == "dead":
        leave_mark(instance, run_id)
    elif how == "ended":
        run = instance.get_run_by_id(run_id)
        assert run is not None
        instance.report_run_canceled(run)
    else:
        instance.run_storage.delete_run(run_id)
    end_dead_runs(instance)
    assert storage.claim_concurrency_slot(POOL, "next", "step").is_claimed


def test_a_night_waits_for_the_studys_own_runs_only(instance: dg.DagsterInstance) -> None:
    killed = started(instance, MAIN_JOB, **{STUDY_TAG: "mini"})
    leave_mark(instance, killed)
    started(instance, MAIN_JOB, **{STUDY_TAG: "twin"})
    assert list(unfinished_runs(instance, "mini")) == []
    assert len(list(unfinished_runs(instance, "twin"))) == 1

    @dg.op(name=OP, config_schema={"study": str, "within_budget": bool})
    def with_config() -> None:
        pass

    @dg.job(name=MAIN_JOB)
    def launched_in_the_ui() -> None:
        with_config()

    waiting = instance.create_run_for_job(launched_in_the_ui, run_config=run_config("mini"))
    assert [run.run_id for run in unfinished_runs(instance, "mini")] == [waiting.run_id]


def test_a_run_that_was_made_and_never_began_is_ended(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process was killed between the two; the next nightly run would wait for it for ever."""

    def made(**tags: str) -> str:
        return instance.create_run_for_job(pooled_job(), tags=tags).run_id

    main = started(instance, MAIN_JOB)
    of_living, of_dead, alone = made(**{MAIN_RUN_TAG: main}), made(**{MAIN_RUN_TAG: "gone"}), made()
    with at_work(instance, main, MAIN_JOB):
        assert end_dead_runs(instance) == [of_dead]
        monkeypatch.setattr(dead_runs, "QUIET_SECONDS", 0.0)
        assert end_dead_runs(instance) == [alone]
    run = instance.get_run_by_id(of_living)
    assert run is not None and run.status == dg.DagsterRunStatus.NOT_STARTED
