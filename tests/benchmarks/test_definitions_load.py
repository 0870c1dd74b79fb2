"""How long loading the definitions takes, beside importing the libraries they cannot do without.

Dagster loads them for every code server and every run. Printed: CPU seconds of both, and the ratio.
"""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.benchmark
PROJECT = Path(__file__).resolve().parents[2]
LIBRARIES = "dagster, duckdb, polars, pydantic"
MOST_SECONDS = 3.0
N_RUNS = 3


def cpu_seconds(modules: str) -> float:
    """The least of some processes that import `modules` and do no more."""
    script = f"import sys, time, {modules}\nsys.stdout.write(str(time.process_time()))"
    command = [sys.executable, "-c", script]
    runs = [
        subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=True)
        for _ in range(N_RUNS)
    ]
    return min(float(run.stdout) for run in runs)


def test_definitions_load_in_under_three_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    libraries, definitions = cpu_seconds(LIBRARIES), cpu_seconds("orchestration.definitions")
    with capsys.disabled():
        sys.stdout.write(
            f"\nlibraries {libraries:.2f} s, definitions {definitions:.2f} s of CPU, ratio "
            f"{definitions / libraries:.2f}\n"
        )
    assert definitions < MOST_SECONDS
