"""One gateway for each module of tests (its `CONFIG`), a fresh origin and fresh clients for each test.

When a test is over its sockets are closed, and the engine must have let go of everything: a connection, lease or exchange that
stays behind fails the test that left it.
"""

from collections.abc import Callable, Iterator

import pytest
from until import wait_until
from wirebench import Client, Gateway, Origin

ONE_ORIGIN = """
listeners:
  - {name: web, port: 8080}
routes:
  - name: all
    rules:
      - matches: [{path: {type: PathPrefix, value: /}}]
        backendRefs: [{name: site}]
clusters:
  - {name: site, endpoints: ["127.0.0.1:1"]}
"""

Connect = Callable[..., Client]


@pytest.fixture(scope="module")
def gateway(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    given = request.module.__dict__
    made = Gateway(given.get("CONFIG", ONE_ORIGIN), hosts=given.get("HOSTS"), problems=given.get("PROBLEMS", ()))
    yield made
    made.close()


@pytest.fixture
def settled(gateway: Gateway) -> Iterator[None]:
    """Comes before every other fixture of a test, so that it looks last."""
    yield
    wait_until(lambda: not gateway.leaks(), 10)
    gateway.log()


@pytest.fixture
def site(gateway: Gateway, settled: None) -> Iterator[Origin]:
    origin = Origin(gateway, "site")
    yield origin
    origin.close()


@pytest.fixture
def connect(gateway: Gateway, settled: None) -> Iterator[Connect]:
    clients: list[Client] = []

    def open_client(listener: str = "web", **how: str) -> Client:
        clients.append(gateway.client(listener, **how))
        return clients[-1]

    yield open_client
    for client in clients:
        client.close()


@pytest.fixture
def client(connect: Connect) -> Client:
    return connect()
