"""Connections: kept and closed, HTTP/1.0 in its forms, half-closed, many requests, and bodies of any size both ways."""

import hashlib
import threading

import pytest
from conftest import Connect
from wirebench import CUTS, Client, Gateway, Origin, forwarded, passes

GET = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
PLAIN = forwarded("GET / HTTP/1.1", "host: a.test")


def test_many_requests_on_one_connection_use_one_connection(client: Client, site: Origin, gateway: Gateway) -> None:
    client.send(GET)
    origin = site.accept()
    for number in range(50):
        if number:
            client.send(GET)
        assert origin.request() == PLAIN
        origin.ok(str(number))
        assert client.answer().body == str(number).encode()
    site.untouched()
    assert [line["status"] for line in gateway.log()] == [200] * 50


def test_clients_share_the_connections_to_an_origin(connect: Connect, site: Origin) -> None:
    first, second = connect(), connect()
    first.send(GET)
    origin = site.accept()
    origin.request()
    origin.ok()
    assert first.answer().status == 200
    second.send(GET)
    assert origin.request() == PLAIN
    # one is busy now: another one is dialled
    first.send(GET)
    other = site.accept()
    assert other.request() == PLAIN
    other.ok("two")
    origin.ok("one")
    assert (first.answer().body, second.answer().body) == (b"two", b"one")


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ("", False),
        ("Connection: keep-alive\r\n", True),
        ("Connection: close\r\n", False),
        ("Connection: Keep-Alive, close\r\n", False),
    ],
)
def test_http_1_0_keeps_its_connection_when_it_asks(connect: Connect, site: Origin, fields: str, kept: bool) -> None:
    for cut in CUTS:
        client = connect()
        client.send(f"GET / HTTP/1.0\r\nHost: a.test\r\n{fields}\r\n", cut=cut)
        origin = site.accept()
        assert origin.request() == forwarded("GET / HTTP/1.1", "host: a.test", via="1.0 isthmus")
        origin.ok()
        answer = client.answer()
        assert (answer.body, answer.get("connection")) == (b"ok", "keep-alive" if kept else "close")
        client.kept() if kept else client.ended()
        origin.close()


def test_http_1_0_without_host_gets_an_empty_one(client: Client, site: Origin) -> None:
    """The origin is spoken to in HTTP/1.1, where a Host has to be there (RFC 9112 §3.2)."""
    client.send("GET /x HTTP/1.0\r\n\r\n")
    origin = site.accept()
    assert origin.request() == forwarded("GET /x HTTP/1.1", "host: ", via="1.0 isthmus")
    origin.ok()
    assert client.answer().body == b"ok"
    client.ended()


def test_an_origin_of_http_1_0(connect: Connect, site: Origin) -> None:
    client = connect()
    for keep in ("", "Connection: keep-alive\r\n"):
        client.send(GET)
        origin = site.accept()
        origin.request()
        origin.send(f"HTTP/1.0 200 OK\r\n{keep}Content-Length: 2\r\n\r\nok")
        answer = client.answer()
        assert (answer.body, answer.get("connection")) == (b"ok", None)
        if keep:
            client.send(GET)
            assert origin.request() == PLAIN
            origin.ok()
            assert client.answer().body == b"ok"
        else:
            origin.ended()
    client.kept()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_a_method_that_has_content_says_when_it_has_none(connect: Connect, site: Origin, method: str) -> None:
    script = f"{method} / HTTP/1.1\r\nHost: a.test\r\n\r\n"
    passes(connect, site, script, forwarded(f"{method} / HTTP/1.1", "host: a.test", content_length="0"))


def test_content_of_a_get_is_content(connect: Connect, site: Origin) -> None:
    script = "GET / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello"
    passes(connect, site, script, forwarded("GET / HTTP/1.1", "host: a.test", content_length="5", body="hello"), 5)


def test_a_half_closed_client_gets_its_answer(connect: Connect, site: Origin) -> None:
    for cut in CUTS:
        client = connect()
        client.send(GET, cut=cut)
        client.half_close()
        origin = site.accept()
        assert origin.request() == PLAIN
        origin.ok()
        assert client.answer().body == b"ok"
        client.ended()
        origin.close()


def test_a_half_closed_client_gets_all_its_answers(client: Client, site: Origin) -> None:
    client.send(GET * 3)
    client.half_close()
    origin = site.accept()
    for number in range(3):
        assert origin.request() == PLAIN
        origin.ok(str(number))
        assert client.answer().body == str(number).encode()
    client.ended()


def test_half_a_head_and_then_the_end(connect: Connect, site: Origin, gateway: Gateway) -> None:
    for end in ("half_close", "reset"):
        for cut in (1, 10, len(GET) - 1):
            client = connect()
            client.send(GET[:cut])
            gateway.turn()
            getattr(client, end)()
            if end == "half_close":
                client.ended()
    site.untouched()


def test_a_client_that_leaves_takes_its_request_along(client: Client, site: Origin, gateway: Gateway) -> None:
    client.send(GET)
    origin = site.accept()
    origin.request()
    client.reset()
    origin.ended()
    assert [line["status"] for line in gateway.log()] == [0]


def pour(end: Client, data: bytes) -> threading.Thread:
    thread = threading.Thread(target=end.socket.sendall, args=(data,))
    thread.start()
    return thread


@pytest.mark.parametrize("size", [1, 4095, 4096, 65535, 131072, 3_000_001])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_bodies_of_any_size_both_ways(client: Client, site: Origin, size: int, is_chunked: bool) -> None:
    data = hashlib.shake_128(b"isthmus").digest(size)
    head = "POST / HTTP/1.1\r\nHost: a.test\r\n"
    if is_chunked:
        framing = b"Transfer-Encoding: chunked\r\n\r\n"
        step = max(1, size // 7)
        body = (
            b"".join(b"%x\r\n%s\r\n" % (len(data[i : i + step]), data[i : i + step]) for i in range(0, size, step)) + b"0\r\n\r\n"
        )
    else:
        framing = b"Content-Length: %d\r\n\r\n" % size
        body = data
    sending = pour(client, head.encode() + framing + body)
    origin = site.accept()
    sent = origin.request()
    if is_chunked:
        assert sent == forwarded("POST / HTTP/1.1", "host: a.test", transfer_encoding="chunked")
        assert Client.chunks(origin)[0] == data  # type: ignore[arg-type]
    else:
        assert sent == forwarded("POST / HTTP/1.1", "host: a.test", content_length=str(size))
        assert origin.exactly(size) == data
    sending.join()
    sending = pour(origin, b"HTTP/1.1 200 OK\r\n" + framing + body)  # type: ignore[arg-type]
    answer = client.answer()
    sending.join()
    assert answer.body == data
    assert (answer.get("transfer-encoding") == "chunked") is is_chunked
    client.kept()
    site.untouched()


def test_a_slow_reader_holds_up_the_origin_and_not_the_gateway(client: Client, site: Origin, gateway: Gateway) -> None:
    """Backpressure: of a response of 64 MiB no more than the buffers of the sockets is taken from the origin."""
    client.send(GET)
    origin = site.accept()
    origin.request()
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n")
    sent = 0
    origin.socket.setblocking(False)
    piece = bytes(65536)
    for _ in range(50):
        try:
            while True:
                sent += origin.socket.send(piece)
                assert sent < 67108864
        except BlockingIOError:
            gateway.turn()
    rows = gateway.call(lambda engine: engine.describe_connections())
    assert max(row["queued_bytes"] for row in rows) < 1 << 20
    client.reset()
    origin.socket.settimeout(10)
    origin.rest()


def test_a_slow_origin_holds_up_the_client(client: Client, site: Origin, gateway: Gateway) -> None:
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 67108864\r\n\r\n")
    origin = site.accept()
    origin.request()
    sent = 0
    client.socket.setblocking(False)
    piece = bytes(65536)
    for _ in range(50):
        try:
            while True:
                sent += client.socket.send(piece)
                assert sent < 67108864
        except BlockingIOError:
            gateway.turn()
    rows = gateway.call(lambda engine: engine.describe_connections())
    assert max(row["held_bytes"] for row in rows) < 1 << 20
    client.socket.settimeout(10)
    origin.reset()
    assert client.answer().status == 502
