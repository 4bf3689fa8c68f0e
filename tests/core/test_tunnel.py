"""Tunnels as the engine drives them, turn by turn: before there is a connection to an endpoint, and after there is none."""

import socket
from collections.abc import Iterator

import pytest
from desk import Desk, blob_of, cluster_id

from gateway.model import Cluster, Config, Listener, TCPRoute
from gateway.model.route import BackendRef, TCPRouteRule


def tcp_config(**facts: object) -> Config:
    rule = TCPRouteRule(backend_refs=(BackendRef(name="site"),))
    return Config(
        listeners=(Listener(name="raw", port=8080, protocol="TCP"),),
        routes=(TCPRoute(name="carry", rules=(rule,)),),
        clusters=(Cluster(name="site", endpoints=("127.0.0.1:9",), **facts),),  # type: ignore[arg-type]
    )


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk(blob_of(tcp_config()), log_format="json")
    yield made
    made.close()


def is_at_rest(desk: Desk) -> bool:
    (row,) = desk.engine.describe_clusters()
    (endpoint,) = row["endpoints"]
    return (
        desk.engine.connections == row["active"] == endpoint["active"] == endpoint["connections"] == endpoint["waiting"] == 0
        and desk.scalar("tunnels_active") == desk.scalar("downstream_connections_active") == 0
    )


def test_what_came_before_the_connection_is_sent_first(desk: Desk) -> None:
    origin = desk.listening()
    desk.set_endpoints("site", origin)
    client = desk.connect(desk.listen(), b"one ", b"two ")
    end = desk.accept(origin)
    client.send(b"three.")
    assert desk.receive(end, b".") == b"one two three."
    end.send(b"answer.")
    assert desk.receive(client, b".") == b"answer."
    client.close()
    end.close()
    desk.until(lambda: is_at_rest(desk))


def test_each_client_has_a_connection_of_its_own(desk: Desk) -> None:
    origin = desk.listening()
    desk.set_endpoints("site", origin)
    listening = desk.listen()
    ends = []
    for number in range(5):
        desk.connect(listening, b"%d." % number)
        ends.append(desk.accept(origin))
        assert desk.receive(ends[-1], b".") == b"%d." % number
    row = desk.cluster("site")
    assert row is not None and row["endpoints"][0]["connections"] == row["endpoints"][0]["active"] == 5
    assert row["endpoints"][0]["idle"] == 0


def test_a_client_that_leaves_while_it_is_dialled_for(desk: Desk) -> None:
    """The connection comes up for nobody: it idles, serves no tunnel, and closes with the cluster."""
    origin = desk.listening()
    desk.set_endpoints("site", origin)
    listening = desk.listen()
    client = desk.connect(listening)
    desk.until(lambda: desk.engine.connections)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    client.close()
    desk.until(lambda: not desk.engine.connections)
    desk.accept(origin)
    desk.until(lambda: (desk.cluster("site") or {})["endpoints"][0]["dialing"] == 0)
    desk.connect(listening, b"second.")
    end = desk.accept(origin)
    assert desk.receive(end, b".") == b"second."


def test_an_engine_that_is_closed_takes_its_tunnels_with_it() -> None:
    desk = Desk(blob_of(tcp_config()))
    origin = desk.listening()
    desk.set_endpoints("site", origin)
    client = desk.connect(desk.listen(), b"a.")
    end = desk.accept(origin)
    assert desk.receive(end, b".") == b"a."
    desk.engine.close()
    for side in (client, end):
        side.settimeout(10)
        with pytest.raises(ConnectionResetError):
            side.recv(1)
    desk.close()


def test_a_drain_waits_for_tunnels_and_then_cuts_them(desk: Desk) -> None:
    origin = desk.listening()
    desk.set_endpoints("site", origin)
    client = desk.connect(desk.listen(), b"a.")
    end = desk.accept(origin)
    desk.receive(end, b".")
    desk.engine.drain(600_000)
    desk.turn()
    end.send(b"still.")
    assert desk.receive(client, b".") == b"still."
    desk.engine.drain(0)
    assert desk.receive(client) == b""
    desk.until(lambda: is_at_rest(desk))


def test_a_cluster_that_no_snapshot_names_carries_on(desk: Desk) -> None:
    origin = desk.listening()
    desk.set_endpoints("site", origin)
    client = desk.connect(desk.listen(), b"a.")
    end = desk.accept(origin)
    desk.receive(end, b".")
    config = tcp_config()
    other = Config(listeners=config.listeners, routes=(), clusters=())
    desk.engine.swap(blob_of(other, 2), 2)
    desk.turn()
    client.send(b"more.")
    assert desk.receive(end, b".") == b"more."
    assert desk.cluster("site") is not None
    client.close()
    end.close()
    desk.until(lambda: cluster_id("site") not in [row["id"] for row in desk.engine.describe_clusters()])


def test_nothing_is_left_of_many(desk: Desk) -> None:
    import gc

    origin = desk.listening()
    desk.set_endpoints("site", origin)
    listening = desk.listen()

    def one() -> None:
        client = desk.connect(listening, b"a.")
        end = desk.accept(origin)
        desk.receive(end, b".")
        client.close()
        end.close()
        desk.until(lambda: is_at_rest(desk))
        desk.sockets.remove(client)
        desk.sockets.remove(end)

    for _ in range(20):
        one()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(60):
        one()
    assert gc.collect() == 0
    assert len(gc.get_objects()) <= before + 20
    assert len(desk.engine.take_log().splitlines()) == 80
