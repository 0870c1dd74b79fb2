"""One real run of the mini study, shared by the tests that look at what it left."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from answering_endpoint import AnsweringEndpoint
from mini_study import write_study
from platform_of_test import Platform


@pytest.fixture
def platform(tmp_path: Path, cache_folder: Path) -> Iterator[Platform]:
    """An empty platform; write studies into `root / "studies"`."""
    (tmp_path / "studies").mkdir()
    with dg.DagsterInstance.ephemeral(str(tmp_path)) as instance:
        yield Platform(tmp_path, instance, cache_folder)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[AnsweringEndpoint]:
    """An LLM on loopback that answers at once; studies with a named model ask it."""
    with AnsweringEndpoint() as endpoint:
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-test")
        yield endpoint


@pytest.fixture(scope="session")
def materialized(
    tmp_path_factory: pytest.TempPathFactory, cache_folder: Path
) -> Iterator[Platform]:
    """The mini study, materialized once for the whole test session."""
    root = tmp_path_factory.mktemp("materialized")
    write_study(root / "studies")
    with dg.DagsterInstance.ephemeral(str(root)) as instance:
        platform = Platform(root, instance, cache_folder)
        result = platform.materialize()
        assert result.success, [event.message for event in result.all_events if event.is_failure]
        yield platform
