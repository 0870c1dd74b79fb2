"""A server that misbehaves on demand, for the tests of the chat model and its cache."""

from collections.abc import Iterator

import pytest
from misbehaving_endpoint import Endpoint


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.server.shutdown()
    endpoint.server.server_close()
