"""Where the gateway runs: asked once, and never waited for longer than it is worth."""

import asyncio

import pytest
from apiserver import ApiServer
from realserver import RealApiServer, needs_real
from servers import AnyServer, client_of

from gateway.sources.kubernetes.backoff import Backoff
from gateway.sources.kubernetes.whereabouts import NOWHERE, Whereabouts, find_whereabouts

NODE = {"kind": "Node", "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "east-1a"}}}


async def asked_of(server: AnyServer) -> Whereabouts:
    client = client_of(server)
    try:
        return await find_whereabouts(client, lambda: Backoff(0.01, 0.02))
    finally:
        await client.close()


def test_a_pod_that_knows_its_node_finds_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_NAME", "n1")

    async def story() -> None:
        server = ApiServer()
        await server.start()
        await server.put(NODE)
        server.fail("/nodes/", 500, 2)
        assert await asked_of(server) == Whereabouts("n1", "east-1a"), "a server in trouble is asked again"
        await server.put({"kind": "Node", "metadata": {"name": "n1"}})
        assert await asked_of(server) == Whereabouts("n1")
        await server.stop()

    asyncio.run(story())


@needs_real
def test_kubernetes_lets_the_gateway_look_at_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the rights of k8s/base."""
    monkeypatch.setenv("NODE_NAME", "n1")

    async def story() -> None:
        server = RealApiServer()
        await server.start()
        server.control.ask("POST", "/api/v1/nodes", {"apiVersion": "v1", **NODE})
        try:
            assert await asked_of(server) == Whereabouts("n1", "east-1a")
        finally:
            server.control.ask("DELETE", "/api/v1/nodes/n1")
            await server.stop()

    asyncio.run(story())


@pytest.mark.parametrize(("status", "times"), [(403, 1), (404, 1), (500, 4)])
def test_a_zone_that_nobody_tells_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: int, times: int
) -> None:
    monkeypatch.setenv("NODE_NAME", "n1")

    async def story() -> None:
        server = ApiServer()
        await server.start()
        await server.put(NODE)
        server.fail("/nodes/", status, 9)
        assert await asked_of(server) == Whereabouts("n1")
        assert server.count("GET", "/nodes/n1") == times
        assert "kubernetes.zone can say it" in caplog.text
        await server.stop()

    asyncio.run(story())


def test_without_a_name_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NODE_NAME", raising=False)

    async def story() -> None:
        server = ApiServer()
        await server.start()
        assert await asked_of(server) == NOWHERE and not server.requests
        await server.stop()

    asyncio.run(story())
