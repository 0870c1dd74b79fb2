"""Who stops a run stops all of it, not only the partition at work; the next run goes on."""

import os
import signal
import time
from typing import Any

import dagster as dg
import pytest
from platform_of_test import Platform

from assets.factorization import fitting
from orchestration.run_tags import MAIN_RUN_TAG
from tests.tiny_study import write_tiny_study

pytestmark = pytest.mark.slow
FITS = [{"method": "pca", "rank": rank} for rank in (2, 4)]


def test_a_signal_stops_the_main_run_and_the_next_one_makes_the_rest(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_study(platform.root, "llama", kinds=["mlp_hidden"], fits=FITS, steering={})
    make_fit, n_begun = fitting.make_fit, 0

    def make_fit_until_stopped(*arguments: Any, **options: Any) -> Any:
        nonlocal n_begun
        n_begun += 1
        if n_begun == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        return make_fit(*arguments, **options)

    monkeypatch.setattr(fitting, "make_fit", make_fit_until_stopped)
    stopped = platform.materialize()
    assert not stopped.success
    said = next(e.step_failure_data.error for e in stopped.all_events if e.is_step_failure)
    assert "the next run goes on" in str(said)
    runs = platform.instance.get_runs(dg.RunsFilter(tags={MAIN_RUN_TAG: stopped.run_id}))
    assert {run.job_name: run.status for run in runs} == {
        "corpus_job": dg.DagsterRunStatus.SUCCESS,
        "activations_job": dg.DagsterRunStatus.SUCCESS,
        "features_job": dg.DagsterRunStatus.CANCELED,
    }
    # Of the second fit nothing was begun.
    assert (len(runs), n_begun) == (3, 1)

    assert platform.materialize().success
    assert n_begun == 3
    assert set(platform.lake.query("FROM factorizations")["fit"]) == {"pca-k002", "pca-k004"}
