"""Upgrades and tunnels: checklist items 43 to 45. A tunnel begins when both sides said so, and not before."""

import socket
import threading

import pytest
from conftest import Connect
from websockets.sync.client import connect as websocket_connect
from websockets.sync.server import ServerConnection, serve
from wirebench import CUTS, Client, Gateway, Origin, forwarded, is_refused, passes

UPGRADE = "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nX: 1\r\n\r\n"
ASKED = forwarded("GET /chat HTTP/1.1", "host: a.test", "x: 1", upgrade="websocket", connection="upgrade")
SWITCHED = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX: 2\r\n\r\n"


def tunnel(connect: Connect, site: Origin) -> tuple[Client, "Origin.accept"]:  # type: ignore[valid-type]
    client = connect()
    client.send(UPGRADE)
    origin = site.accept()
    assert origin.request() == ASKED
    origin.send(SWITCHED)
    assert client.answer().status == 101
    return client, origin


def test_a_tunnel_carries_bytes_both_ways(connect: Connect, site: Origin) -> None:
    for cut in CUTS:
        client = connect()
        client.send(UPGRADE, cut=cut)
        origin = site.accept()
        assert origin.request() == ASKED
        origin.send(SWITCHED, cut=cut)
        answer = client.answer()
        assert answer.fields == [("x", "2"), ("upgrade", "websocket"), ("connection", "upgrade")]
        for text in (b"\x00\xff\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"x" * 300_000):
            sender = threading.Thread(target=client.socket.sendall, args=(text,))
            sender.start()
            assert origin.exactly(len(text)) == text
            sender.join()
            sender = threading.Thread(target=origin.socket.sendall, args=(text,))
            sender.start()
            assert client.exactly(len(text)) == text
            sender.join()
        client.close()
        origin.ended()


def test_item_43_101_that_nobody_asked_for(client: Client, site: Origin) -> None:
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
    origin = site.accept()
    origin.request()
    origin.send(SWITCHED + "tunnel")
    assert client.answer().status == 502
    assert origin.rest() == b""
    client.kept()


@pytest.mark.parametrize("head", ["HTTP/1.1 101 X\r\n\r\n", "HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"])
def test_item_43_101_that_says_nothing(client: Client, site: Origin, head: str) -> None:
    client.send(UPGRADE)
    origin = site.accept()
    origin.request()
    origin.send(head)
    assert client.answer().status == 502
    assert origin.rest() == b""


@pytest.mark.parametrize("status", ["200 OK", "403 Forbidden", "426 Upgrade Required", "500 Internal Server Error"])
def test_item_43_any_other_answer_stays_http(connect: Connect, site: Origin, status: str) -> None:
    """What the client sent already is its next request, and is parsed as one."""
    for cut in CUTS:
        client = connect()
        client.send(UPGRADE + "GET /next HTTP/1.1\r\nHost: a.test\r\nConnection: x\r\nX: smuggled\r\n\r\n", cut=cut)
        origin = site.accept()
        assert origin.request() == ASKED
        origin.nothing_more()
        origin.send(f"HTTP/1.1 {status}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nno")
        answer = client.answer()
        assert (answer.status, answer.get("upgrade"), answer.get("connection")) == (int(status[:3]), None, None)
        assert origin.request() == forwarded("GET /next HTTP/1.1", "host: a.test")
        origin.ok()
        assert client.answer().body == b"ok"
        client.kept()
        origin.close()


@pytest.mark.parametrize("fields", ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", "Content-Length: 0\r\n"])
def test_item_44_an_upgrade_with_a_body(connect: Connect, site: Origin, fields: str) -> None:
    is_refused(connect, site, f"POST / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n{fields}\r\nhello")


def test_item_44_early_bytes_are_held_until_101(connect: Connect, site: Origin) -> None:
    for cut in CUTS:
        client = connect()
        client.send(UPGRADE + "early", cut=cut)
        origin = site.accept()
        assert origin.request() == ASKED
        origin.nothing_more()
        origin.send(SWITCHED + "hello", cut=cut)
        assert origin.exactly(5) == b"early"
        assert client.answer().status == 101
        assert client.exactly(5) == b"hello"
        client.close()
        origin.ended()


@pytest.mark.parametrize(
    "fields",
    [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
        "Connection: Upgrade\r\nUpgrade: H2C\r\n",
        "Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: h2\r\nUpgrade: h2c/1\r\n",
        "HTTP2-Settings: x\r\nUpgrade: ,h2c,\r\nConnection: upgrade\r\nConnection: http2-settings\r\n",
        "Upgrade: websocket\r\n",
        "Connection: upgrade\r\n",
    ],
)
def test_item_45_h2c_is_not_passed_on(connect: Connect, site: Origin, fields: str) -> None:
    passes(connect, site, f"GET / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n", forwarded("GET / HTTP/1.1", "host: a.test"))


def test_item_45_what_stands_beside_h2c_is(connect: Connect, site: Origin) -> None:
    client = connect()
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: h2c, foo/2\r\nUpgrade: h2c\r\n\r\n")
    origin = site.accept()
    assert origin.request() == forwarded("GET / HTTP/1.1", "host: a.test", upgrade="foo/2", connection="upgrade")
    origin.ok()
    assert client.answer().body == b"ok"
    client.kept()


def test_an_upgrade_of_http_1_0_is_none(client: Client, site: Origin) -> None:
    client.send("GET / HTTP/1.0\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    origin = site.accept()
    assert origin.request() == forwarded("GET / HTTP/1.1", "host: a.test", via="1.0 isthmus")
    origin.ok()
    assert client.answer().status == 200


def test_each_side_of_a_tunnel_ends_by_itself(connect: Connect, site: Origin) -> None:
    """The client first: the origin still answers. Then the origin first: what the client says after that still arrives."""
    client, origin = tunnel(connect, site)
    client.send("last words")
    client.half_close()
    assert origin.rest() == b"last words"
    origin.send("farewell")
    origin.close()
    assert client.rest() == b"farewell"

    client, origin = tunnel(connect, site)
    origin.send("last words")
    origin.half_close()
    assert client.rest() == b"last words"
    client.send("still here")
    assert origin.exactly(10) == b"still here"
    client.send("farewell")
    client.close()
    assert origin.rest() == b"farewell"


def test_the_last_bytes_of_a_tunnel_are_not_lost(connect: Connect, gateway: Gateway, site: Origin) -> None:
    """They come together with the end, after the other side has ended."""
    client, origin = tunnel(connect, site)
    origin.half_close()
    client.ended()
    with gateway.stopped():
        client.send("farewell")
        client.half_close()
    assert origin.rest() == b"farewell"


def test_a_reset_goes_through_a_tunnel(connect: Connect, site: Origin) -> None:
    client, origin = tunnel(connect, site)
    client.reset()
    origin.ended()
    client, origin = tunnel(connect, site)
    origin.reset()
    client.ended()


def test_websockets_through_the_gateway(gateway: Gateway, settled: None) -> None:
    """The library's client and server, which check every byte of the handshake and of the frames."""

    def echo(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    listening = socket.create_server(("127.0.0.1", 0))
    host, port = listening.getsockname()
    gateway.set_endpoints("site", [(host.encode(), port, 1, b"")])
    with serve(echo, sock=listening, subprotocols=["chat"]) as server:  # type: ignore[list-item]
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        host, port = gateway.address("web")
        try:
            with websocket_connect(f"ws://{host}:{port}/x", subprotocols=["chat"], open_timeout=10) as client:  # type: ignore[list-item]
                assert client.subprotocol == "chat"
                for message in ("hello", b"\0\xff" * 100, "x" * 500_000):
                    client.send(message)
                    assert client.recv(timeout=10) == message
                assert client.ping().wait(10)
        finally:
            server.shutdown()
            serving.join()
    assert [line["status"] for line in gateway.log()] == [101]
