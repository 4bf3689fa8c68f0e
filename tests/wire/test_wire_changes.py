"""What changes while requests are under way: snapshots, endpoints, draining; and many of everything at once."""

import resource
from collections.abc import Iterator

import pytest
from conftest import ONE_ORIGIN, Connect
from until import wait_until
from wirebench import Client, Gateway, Origin, forwarded

GET = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
PLAIN = forwarded("GET / HTTP/1.1", "host: a.test")
EMPTY = "listeners: [{name: web, port: 8080}]"
OTHER_PORT = "listeners: [{name: web, port: 8081}]"


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """One for each test: what is changed here does not change back."""
    made = Gateway(ONE_ORIGIN)
    yield made
    made.close()


def test_a_request_ends_as_it_began(connect: Connect, gateway: Gateway, site: Origin) -> None:
    """Route and cluster are gone from the configuration in the middle of it; the next request sees that."""
    client, other = connect(), connect()
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhello")
    origin = site.accept()
    head = origin.request(5)
    gateway.swap(EMPTY)
    other.send(GET)
    assert other.answer().status == 404
    client.send("world")
    assert head + origin.exactly(5) == forwarded("POST / HTTP/1.1", "host: a.test", content_length="10", body="helloworld")
    origin.ok()
    assert client.answer().body == b"ok"
    assert origin.rest() == b""
    client.send(GET)
    assert client.answer().status == 404
    client.kept()


def test_a_head_in_pieces_over_a_change(client: Client, gateway: Gateway, site: Origin) -> None:
    client.send(GET[:20])
    gateway.turn()
    gateway.swap(EMPTY)
    gateway.swap(ONE_ORIGIN)
    gateway.set_endpoints("site", [site.endpoint])
    client.send(GET[20:])
    origin = site.accept()
    assert origin.request() == PLAIN
    origin.ok()
    assert client.answer().body == b"ok"


def test_a_listener_that_goes_away_says_goodbye(connect: Connect, gateway: Gateway, site: Origin) -> None:
    client, half = connect(), connect()
    client.kept()
    half.send(GET[:20])
    gateway.turn()
    gateway.swap(OTHER_PORT)
    client.send(GET)
    client.refused(404)
    half.send(GET[20:])
    assert half.answer().get("connection") == "close"
    half.ended()
    connect().ended()
    site.untouched()


def test_endpoints_that_go_away(client: Client, gateway: Gateway, site: Origin) -> None:
    """A pooled connection closes, one in use ends with its request."""
    client.send(GET)
    origin = site.accept()
    origin.request()
    origin.ok()
    client.answer()
    fresh = Origin(gateway, "site")
    assert origin.rest() == b""
    client.send(GET)
    end = fresh.accept()
    end.request()
    gateway.set_endpoints("site", [site.endpoint])
    end.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
    end.send("ok")
    assert client.answer().body == b"ok"
    assert end.rest() == b""
    client.send(GET)
    origin = site.accept()
    assert origin.request() == PLAIN
    origin.ok()
    assert client.answer().status == 200
    fresh.close()


def test_draining(connect: Connect, gateway: Gateway, site: Origin) -> None:
    """Idle connections close, and a request under way gets its answer with the last word."""
    idle, busy, begun = connect(), connect(), connect()
    for client in (idle, busy, begun):
        client.kept()
    busy.send(GET)
    origin = site.accept()
    origin.request()
    begun.send(GET[:20])
    gateway.turn()
    gateway.call(lambda engine: engine.drain(60_000))
    idle.ended()
    origin.ok()
    busy.refused(200)
    begun.send(GET[20:])
    assert origin.request() == PLAIN
    origin.ok()
    begun.refused(200)
    wait_until(lambda: gateway.call(lambda engine: engine.connections) == 0)


def test_draining_has_a_deadline(connect: Connect, gateway: Gateway, site: Origin) -> None:
    client, tunnel = connect(), connect()
    client.send(GET)
    site.accept().request()
    tunnel.send("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    origin = site.accept()
    origin.request()
    origin.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert tunnel.answer().status == 101
    gateway.call(lambda engine: engine.drain(50))
    client.ended()
    tunnel.ended()
    assert origin.rest() == b""


def test_more_requests_at_once_than_are_kept_for_reuse(connect: Connect, gateway: Gateway, site: Origin) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = 4096
    if hard != resource.RLIM_INFINITY and hard < need:
        pytest.skip("not enough descriptors allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, need), hard))
    try:
        clients = []
        for _ in range(1200):
            clients.append(connect())
            clients[-1].send(GET[:20])
        gateway.turn()
        assert gateway.scalar("downstream_requests_active") == 1200
        for client in clients[:600]:
            client.reset()
        for client in clients[600:]:
            client.send("\0\r\n")
        for client in clients[600:]:
            client.refused(400)
        wait_until(lambda: gateway.scalar("downstream_requests_active") == 0)
        last = connect()
        last.send(GET)
        origin = site.accept()
        origin.request()
        origin.ok()
        assert last.answer().body == b"ok"
        assert len(gateway.log()) == 1201
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
