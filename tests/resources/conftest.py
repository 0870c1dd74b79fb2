"""Servers on loopback for the tests of the chat model and its cache; no subject model kept."""

from collections.abc import Iterator

import pytest
from batch_endpoint import BatchEndpoint, batch_endpoint
from misbehaving_endpoint import Endpoint

from resources.subject_model import forget_subject_models


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A server that misbehaves on demand."""
    endpoint = Endpoint()
    yield endpoint
    endpoint.server.shutdown()
    endpoint.server.server_close()


@pytest.fixture
def provider() -> Iterator[BatchEndpoint]:
    """A server with a batch API."""
    with batch_endpoint() as running:
        yield running


@pytest.fixture
def no_models_kept() -> Iterator[None]:
    """The process holds no subject model before or after."""
    forget_subject_models()
    yield
    forget_subject_models()
