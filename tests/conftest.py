"""What every test shares: a quiet, key-less environment and a model cache that outlives the run."""

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# One thread: small matrices gain nothing from two, and lose much beside other processes, of which
# `make test` has one a core. Those that tests start inherit it.
for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(threads, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
for variable in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
    os.environ.pop(variable, None)
# What a shell starts in the background ignores Ctrl-C, and so would the servers that tests stop.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--benchmark", action="store_true", help="run tests/benchmarks too")


@pytest.hookimpl(wrapper=True)  # before xdist reads the groups
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None]:
    """How `make test` spreads the tests over its processes; a single process keeps its order.

    Slow tests first and one by one, so that no long one comes last; the others by file, and those
    of one materialized study together, so that what they share is made once.
    """
    grouped = items if hasattr(config, "workerinput") else []
    for item in grouped:
        if "materialized" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("materialized"))
        elif item.get_closest_marker("slow") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    if grouped:
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    yield
    if any(item.get_closest_marker("xdist_group") and "@" not in item.nodeid for item in grouped):
        raise pytest.UsageError("pytest-xdist doesn't group tests with this version of pytest")


@pytest.fixture(scope="session")
def cache_folder() -> Path:
    """The project's cache: converted models are made once and reused by later runs."""
    return PROJECT / ".cache"
