"""Stage jobs beside each other, with a process a run or a step, while a reader looks on."""

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from answering_endpoint import AnsweringEndpoint
from dagster_servers import BIN, WORKSPACE, daemon, environment, instance_at, running, wait_for
from mini_study import write_study
from nightly_study import NIGHTLY_STUDY
from platform_of_test import Platform
from pooled_job import PROJECT, new_home
from reading_lake import start

from assets.shared.content_hash import column_versions
from orchestration.data_dictionary import all_tables
from orchestration.partition_sync import sync_partitions
from orchestration.recipes import tables_of
from resources.ledger import Ledger
from resources.study_files import StudiesResource

pytestmark = pytest.mark.slow
SITE = "mini:smollm2-135m-instruct@L20.mlp_hidden"
FITS = ("pca-k004", "random-k003")
POOLED = ("faithfulness",)
ASSETS = ("factorization", "contexts", *POOLED)
TABLES = tuple(table.name for asset in ASSETS for table in tables_of(asset))
RUN = """
import sys
import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableRepository

partition, *tables = sys.argv[1:]
code = ReconstructableRepository.for_module("orchestration.definitions", "defs")
job = code.get_reconstructable_job("features_job")
with (
    dg.DagsterInstance.get() as instance,
    dg.execute_job(
        job,
        instance=instance,
        run_config={"execution": {"config": {"multiprocess": {"max_concurrent": 2}}}},
        tags=dict(job.get_definition().get_tags_for_partition_key(partition, None)),
        asset_selection=[dg.AssetKey(table) for table in tables],
    ) as result,
):
    sys.exit(0 if result.success else 1)
"""


@pytest.fixture
def captured(tmp_path: Path, cache_folder: Path) -> Iterator[Platform]:
    """Documents and activations of a study with two fits, on an instance as `make` sets it up."""
    new_home(tmp_path)
    fits = [{"method": "pca", "rank": 4}, {"method": "random", "rank": 3, "keep_fraction": 0.02}]
    write_study(tmp_path / "studies", **{**NIGHTLY_STUDY, "fits": fits})
    with instance_at(tmp_path) as instance:
        platform = Platform(tmp_path, instance, cache_folder)
        studies, _ = StudiesResource(folder=str(tmp_path / "studies")).readable()
        sync_partitions(instance, studies)
        for job, partition in (("corpus_job", "mini"), ("activations_job", SITE)):
            assert (
                platform.definitions()
                .resolve_job_def(job)
                .execute_in_process(instance=instance, partition_key=partition)
                .success
            )
        yield platform


def partition_key(fit: str) -> str:
    return str(dg.MultiPartitionKey({"site": SITE, "fit": fit}))


def runs_of(platform: Platform, job: str) -> list[dg.RunRecord]:
    return platform.instance.get_run_records(dg.RunsFilter(job_name=job), ascending=True)


def spans_of_steps(platform: Platform, steps: tuple[str, ...]) -> list[tuple[float, float]]:
    """When these steps of all features_job runs began and ended, from the event log."""
    kinds = {dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_SUCCESS}
    spans = []
    for record in runs_of(platform, "features_job"):
        events = platform.instance.all_logs(record.dagster_run.run_id, of_type=kinds)
        for step in steps:
            times = [event.timestamp for event in events if event.step_key == step]
            assert len(times) == 2, (step, times)
            spans.append((times[0], times[1]))
    return sorted(spans)


def assert_whole(platform: Platform, tables: tuple[str, ...]) -> None:
    """The rows in the lake are those that the ledger tells of, for both fits."""
    states = Ledger(platform.lake).states()
    declared = {table.name: table for table in all_tables()}
    for fit in FITS:
        told = {
            table: versions
            for (_, partition), entry in states.items()
            if partition == f"{SITE} | {fit}"
            for table, versions in (entry.versions or {}).items()
        }
        assert set(told) >= set(tables)
        for name in tables:
            rows = platform.lake.read(declared[name], {"site": SITE, "fit": fit})
            found = column_versions(rows.drop("site", "fit"), declared[name])
            assert found == told[name], (fit, name)


def test_runs_with_a_process_a_step_and_a_reader_between_them(
    captured: Platform, tmp_path: Path
) -> None:
    stop = tmp_path / "stop"
    reader = start(captured.root / "lake", stop)
    # Two on one partition, one on another, all at once.
    partitions = [partition_key(fit) for fit in (*FITS, FITS[0])]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", RUN, partition, *TABLES],
            cwd=PROJECT,
            env=environment(captured.root, captured.cache_folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for partition in partitions
    ]
    outputs = [run.communicate(timeout=800)[0] for run in runs]
    stop.touch()
    seen, errors = reader.communicate(timeout=60)
    assert [run.returncode for run in runs] == [0, 0, 0], [output[-3000:] for output in outputs]
    assert reader.returncode == 0, errors
    report = json.loads(seen)
    assert report["torn"] == []
    assert report["partitions"] == 2 and report["reads"] > 20
    assert_whole(captured, TABLES)

    records = runs_of(captured, "features_job")
    assert len(records) == 3
    assert max(one.start_time for one in records) < min(one.end_time for one in records)
    rows = captured.lake.query(
        "SELECT run_id, asset, decision FROM run_ledger WHERE run_id IN (SELECT unnest(?))",
        [[one.dagster_run.run_id for one in records]],
    )
    assert len(rows) == 3 * len(ASSETS)
    assert set(rows["decision"]) <= {"computed", "reused"}
    spans = spans_of_steps(captured, POOLED)
    assert len(spans) == 3 * len(POOLED)
    for (_, ended), (began, _) in itertools.pairwise(spans):
        assert ended <= began, spans


def test_a_backfill_goes_through_the_queue_with_a_process_a_run(
    captured: Platform, tmp_path: Path
) -> None:
    with AnsweringEndpoint() as endpoint:
        variables = environment(
            captured.root,
            captured.cache_folder,
            OPENAI_BASE_URL=endpoint.url,
            OPENAI_API_KEY="sk-test",
        )
        partitions = ",".join(map(partition_key, FITS))
        command = [str(BIN / "dagster"), "job", "backfill", *WORKSPACE, "-j", "features_job"]
        with running(daemon(), variables=variables, folder=tmp_path):
            subprocess.run(
                [*command, "--partitions", partitions, "--noprompt"],
                env=variables,
                cwd=tmp_path,
                check=True,
                timeout=300,
            )
            records = wait_for(
                "the end of both runs",
                lambda: (
                    [
                        one
                        for one in runs_of(captured, "features_job")
                        if one.dagster_run.is_finished
                    ][1:]
                    and runs_of(captured, "features_job")
                ),
                800,
            )
    assert [one.dagster_run.status for one in records] == [dg.DagsterRunStatus.SUCCESS] * 2
    assert_whole(captured, (*TABLES, "labels", "steering_scores", "features"))
    for record in records:
        log = captured.instance.all_logs(record.dagster_run.run_id)
        assert any("Executing steps in process" in event.message for event in log)
    spans = spans_of_steps(captured, (*POOLED, "vocab_projection", "steering", "detection"))
    for (_, ended), (began, _) in itertools.pairwise(spans):
        assert ended <= began, spans
