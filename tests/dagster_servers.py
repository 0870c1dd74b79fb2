"""Dagster's own processes over folders of a test: what `make ui` and the daemon alone start."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
from dagster._core.instance.ref import InstanceRef
from pooled_job import PROJECT

BIN = Path(sys.executable).parent
WORKSPACE = ("-w", str(PROJECT / "workspace.yaml"))


def environment(root: Path, cache_folder: Path, **more: str) -> dict[str, str]:
    """The variables by which the project's code finds the folders of a test."""
    return {
        **os.environ,
        "DAGSTER_HOME": str(root / "home"),
        "FEATURELAKE_LAKE": str(root / "lake"),
        "FEATURELAKE_STUDIES": str(root / "studies"),
        "FEATURELAKE_CACHE": str(cache_folder),
        **more,
    }


@contextlib.contextmanager
def running(
    *commands: list[str],
    variables: dict[str, str],
    folder: Path,
    working_folder: Path | None = None,
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes, each with a group of its own, that are stopped at the end with all they started.

    Their output goes to `servers.log` in `folder`, where they work, too, if nothing else is said.
    """
    with (folder / "servers.log").open("ab") as log:
        servers = [
            subprocess.Popen(
                command,
                cwd=working_folder or folder,
                env=variables,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            for command in commands
        ]
        try:
            yield servers
        finally:
            started = [child for server in servers for child in _children(server.pid)]
            for server in servers:
                server.terminate()
            for server in servers:
                server.wait(timeout=120)
            # Runs go on without the server that launched them: those of a test that failed, say.
            _, alive = psutil.wait_procs(started, timeout=1)
            for process in alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


def _children(pid: int) -> list[psutil.Process]:
    """All processes below one; none where it has ended."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def daemon() -> list[str]:
    """The daemon without a webserver."""
    return [str(BIN / "dagster-daemon"), "run", *WORKSPACE]


@contextlib.contextmanager
def instance_at(root: Path) -> Iterator[dg.DagsterInstance]:
    """The instance of a test's home, all of whose files are there."""
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(root / "home"))) as instance:
        instance.get_runs(limit=1)
        instance.get_asset_keys(limit=1)
        instance.all_instigator_state()
        yield instance


def wait_for(what: str, probe: Callable[[], Any], seconds: float) -> Any:
    """What `probe` gives as soon as it is true; raises AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if found := probe():
                return found
        time.sleep(1.0)
    raise AssertionError(f"{what}: not seen in {seconds:.0f} s")
