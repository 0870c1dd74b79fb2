"""Studies run by processes of their own, as a terminal would, to their end or until SIGKILL.

Everything lies in one folder: studies, lake and DAGSTER_HOME. Models converted before are shared.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl
from lake_contents import ledger_since

from orchestration.recipes import tables_of
from orchestration.unreported import is_reported
from resources.lake import Lake
from resources.ledger import Ledger

PROJECT = Path(__file__).resolve().parents[1]
LONGEST_RUN_SECONDS = 3600
POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Finished:
    """A run that came to a good end: seconds of its whole process, and its ledger rows."""

    seconds: float
    ledger: pl.DataFrame


@dataclass
class SeparateProcess:
    """A folder with studies and a lake, and the runs in it."""

    root: Path
    cache_folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.studies.mkdir(exist_ok=True)
        shutil.copy(PROJECT / "orchestration" / "dagster.yaml", self.home)

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def studies(self) -> Path:
        return self.root / "studies"

    @property
    def lake_root(self) -> Path:
        return self.root / "lake"

    @contextmanager
    def lake(self) -> Iterator[Lake]:
        """The lake, opened for a look and closed again."""
        lake = Lake(self.lake_root)
        try:
            yield lake
        finally:
            lake.close()

    def run(self, study: str) -> Finished:
        """A run to its end; AssertionError with its output where that is no good one."""
        began, clock = datetime.now(UTC), time.monotonic()
        process = self._start(study)
        try:
            status = process.wait(LONGEST_RUN_SECONDS)
        finally:
            _kill(process)
        seconds = time.monotonic() - clock
        assert status == 0, self._output.read_text()[-4000:]
        with self.lake() as lake:
            return Finished(seconds, ledger_since(lake, began))

    def run_and_kill(self, study: str, when: Callable[[], bool], delay: float = 0.0) -> bool:
        """SIGKILL a run `delay` seconds after `when()`; False where it had ended before that."""
        process = self._start(study)
        try:
            while process.poll() is None and not when():
                time.sleep(POLL_SECONDS)
            if process.poll() is None:
                time.sleep(delay)
            return process.poll() is None
        finally:
            _kill(process)

    def n_files(self) -> int:
        """How many files the lake's folder holds; it grows as a run goes on."""
        return sum(len(files) for _, _, files in os.walk(self.lake_root))

    def unfinished_runs(self) -> list[dg.DagsterRun]:
        """Runs that Dagster holds for under way."""
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            return [run for run in instance.get_runs() if not run.is_finished]

    def unreported(self) -> list[tuple[str, str]]:
        """(asset, partition) whose rows Dagster does not know, or knows in an older version."""
        with self.lake() as lake:
            states = Ledger(lake).states()
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            return [
                (asset, partition)
                for (asset, partition), entry in states.items()
                if not is_reported(
                    instance,
                    [table.name for table in tables_of(asset)],
                    partition_key_of(partition),
                    entry,
                )
            ]

    @property
    def _output(self) -> Path:
        return self.root / "output.txt"

    def _start(self, study: str) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "DAGSTER_HOME": str(self.home),
            "FEATURELAKE_LAKE": str(self.lake_root),
            "FEATURELAKE_STUDIES": str(self.studies),
            "FEATURELAKE_CACHE": str(self.cache_folder),
            **self.environment,
        }
        with self._output.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "orchestration.run_study", study],
                cwd=PROJECT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def partition_key_of(partition: str) -> str:
    """Dagster's key of a partition that the ledger names."""
    site, _, fit = partition.partition(" | ")
    return str(dg.MultiPartitionKey({"site": site, "fit": fit})) if fit else site


def _kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for the whole process group; nothing where it has ended: its id may be another's."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
