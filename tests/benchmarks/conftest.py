"""Benchmarks run only when asked for: `pytest tests/benchmarks --benchmark`."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_LINES: list[str] = []


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the files of this folder out, rather than skip their tests, without `--benchmark`."""
    return None if config.getoption("--benchmark") else True


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes lines that are shown at once, and all together at the end of the session."""
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    terminal = request.config.pluginmanager.get_plugin("terminalreporter")
    assert capture is not None and terminal is not None

    def show(line: str) -> None:
        _LINES.append(line)
        with capture.global_and_fixture_disabled():
            terminal.write_line(line)

    return show


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    yield
    if _LINES:
        terminalreporter.section("benchmarks")
        for line in _LINES:
            terminalreporter.write_line(line)
