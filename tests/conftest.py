"""What every test shares: a quiet, key-less environment and a model cache that outlives the run."""

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# One thread: small matrices gain nothing from two, and lose much beside other processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
for variable in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
    os.environ.pop(variable, None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--benchmark", action="store_true", help="run tests/benchmarks too")


@pytest.fixture(scope="session")
def cache_folder() -> Path:
    """The project's cache: converted models are made once and reused by later runs."""
    return PROJECT / ".cache"
