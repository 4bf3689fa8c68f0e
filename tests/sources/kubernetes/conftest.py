"""Tests that are run on the small API server and, by `make test-kube`, on Kubernetes' own."""

from collections.abc import Iterator

import pytest
import servers
from realserver import REAL


@pytest.fixture(params=["small", pytest.param("real", marks=REAL)])
def each_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """What servers.new_server makes in this test."""
    servers.choose(request.param)
    yield request.param
    servers.choose("small")
