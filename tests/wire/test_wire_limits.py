"""Limits and deadlines, each with its status: 408, 413, 414, 431, 503, 504. The times are short here."""

import socket

import pytest
from conftest import Connect
from wirebench import Client, Gateway, Origin, forwarded

CONFIG = """
limits: {maxHeaderCount: 10, maxHeaderBytes: 1024, maxRequestLine: 256}
listeners:
  - {name: web, port: 8080, limits: {maxBodySize: 1000}}
  - {name: head, port: 8081, limits: {headerTimeout: 100ms}}
  - {name: idle, port: 8082, limits: {idleTimeout: 100ms}}
  - {name: body, port: 8083, limits: {bodyTimeout: 100ms}}
  - {name: silent, port: 8084, limits: {streamIdleTimeout: 200ms}}
  - {name: few, port: 8085, limits: {maxConnections: 2}}
  - {name: short, port: 8086, limits: {maxRequestsPerConnection: 3}}
routes:
  - name: all
    rules:
      - matches: [{path: {type: PathPrefix, value: /}}]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /request}}]
        timeouts: {request: 100ms}
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /attempt}}]
        timeouts: {backendRequest: 100ms}
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /retry}}]
        timeouts: {request: 5s, backendRequest: 100ms}
        retry: {attempts: 2, codes: [503], backoff: 1ms}
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /narrow}}]
        backendRefs: [{name: narrow}]
      - matches: [{path: {type: PathPrefix, value: /dark}}]
        backendRefs: [{name: dark}]
clusters:
  - {name: site, endpoints: ["127.0.0.1:1"], outlierDetection: {consecutiveErrors: 0}}
  - {name: narrow, endpoints: ["127.0.0.1:1"], maxConnections: 1, maxPending: 1}
  - {name: dark, endpoints: ["127.0.0.1:1"], connectTimeout: 100ms}
"""
HOST = "Host: a.test\r\n"


def get(path: str) -> str:
    return f"GET {path} HTTP/1.1\r\n{HOST}\r\n"


def test_a_head_within_its_limits(client: Client, site: Origin) -> None:
    client.send(f"GET / HTTP/1.1\r\n{HOST}" + "".join(f"x{i}: y\r\n" for i in range(9)) + "\r\n")
    origin = site.accept()
    assert origin.request() == forwarded("GET / HTTP/1.1", "host: a.test", *(f"x{i}: y" for i in range(9)))
    origin.ok()
    assert client.answer().status == 200
    client.send("GET /" + "x" * 242 + " HTTP/1.1\r\n" + HOST + "\r\n")
    assert origin.request().startswith(b"GET /xxx")
    origin.ok()
    assert client.answer().status == 200


@pytest.mark.parametrize(
    ("script", "status"),
    [
        (f"GET / HTTP/1.1\r\n{HOST}" + "".join(f"x{i}: y\r\n" for i in range(10)) + "\r\n", 431),
        (f"GET / HTTP/1.1\r\n{HOST}x: " + "y" * 1024 + "\r\n\r\n", 431),
        (f"GET / HTTP/1.1\r\n{HOST}" + "y" * 2000, 431),
        (f"GET /{'x' * 243} HTTP/1.1\r\n{HOST}\r\n", 414),
        (f"GET /{'x' * 2000}", 414),
        (f"POST / HTTP/1.1\r\n{HOST}Content-Length: 100000\r\n\r\n", 413),
        (f"POST / HTTP/1.1\r\n{HOST}Expect: 100-continue\r\nContent-Length: 1001\r\n\r\n", 413),
    ],
)
def test_a_head_beyond_its_limits(connect: Connect, site: Origin, script: str, status: int) -> None:
    for cut in (None, range(100, len(script), 100)):
        client = connect()
        client.send(script, cut=cut)
        client.refused(status)
    site.untouched()


def test_a_body_that_grows_too_large(connect: Connect, site: Origin) -> None:
    """Chunked, so that nobody knew before; the origin never sees an end of it."""
    client = connect()
    client.send(f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n" + "100\r\n" + "x" * 256 + "\r\n")
    origin = site.accept()
    origin.until(b"x" * 256)
    client.send(("100\r\n" + "x" * 256 + "\r\n") * 3)
    client.send("0\r\n\r\n")
    client.refused(413)
    assert b"\r\n0\r\n" not in origin.rest()


def test_a_body_of_just_the_size(client: Client, site: Origin) -> None:
    client.send(f"POST / HTTP/1.1\r\n{HOST}Content-Length: 1000\r\n\r\n" + "x" * 1000)
    origin = site.accept()
    assert origin.request(1000).endswith(b"x" * 1000)
    origin.ok()
    assert client.answer().status == 200
    client.kept()


def test_a_head_that_does_not_come(connect: Connect, site: Origin) -> None:
    client = connect("head")
    client.send(f"GET / HTTP/1.1\r\n{HOST}")
    client.refused(408)
    site.untouched()


def test_a_head_that_drips(connect: Connect, site: Origin) -> None:
    """The deadline counts from the first byte and not from the last one."""
    client = connect("head")
    client.send(f"GET / HTTP/1.1\r\n{HOST}")
    for _ in range(1000):
        client.send("x", cut="bytes")
        client.socket.setblocking(False)
        try:
            client.more()
            break
        except BlockingIOError:
            client.gateway.call(lambda engine: None)
        finally:
            client.socket.settimeout(10)
    client.refused(408) if b"408" in client.held else client.answer()
    site.untouched()


def test_an_idle_connection_is_closed_without_a_word(connect: Connect, site: Origin) -> None:
    client = connect("idle")
    client.ended()
    client = connect("idle")
    client.send(get("/"))
    origin = site.accept()
    origin.request()
    origin.ok()
    assert client.answer().status == 200
    client.ended()


def test_a_body_that_does_not_come(connect: Connect, site: Origin) -> None:
    client = connect("body")
    client.send(f"POST / HTTP/1.1\r\n{HOST}Content-Length: 10\r\n\r\nhello")
    origin = site.accept()
    origin.request(5)
    client.refused(408)
    assert origin.rest() == b""


def test_an_exchange_in_which_nothing_happens(connect: Connect, site: Origin) -> None:
    client = connect("silent")
    client.send(get("/"))
    origin = site.accept()
    origin.request()
    assert client.answer().status == 504
    origin.ended()
    # in the middle of the answer there is only the end
    client = connect("silent")
    client.send(get("/"))
    origin = site.accept()
    origin.request()
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    assert client.rest().endswith(b"hello")
    origin.ended()


def test_more_connections_than_allowed(connect: Connect, gateway: Gateway, settled: None) -> None:
    first, second = connect("few"), connect("few")
    first.kept()
    second.kept()
    connect("few").ended()
    first.close()
    gateway.turn()
    connect("few").kept()


def test_requests_of_a_connection_are_counted(connect: Connect, site: Origin) -> None:
    client = connect("short")
    client.kept()
    client.kept()
    client.send(get("/") * 2)
    origin = site.accept()
    origin.request()
    origin.ok()
    client.refused(200)
    origin.nothing_more()


@pytest.mark.parametrize("path", ["/request", "/attempt"])
def test_an_origin_that_takes_too_long(client: Client, site: Origin, path: str) -> None:
    client.send(get(path))
    origin = site.accept()
    origin.request()
    assert client.answer().status == 504
    origin.ended()
    client.kept()


def test_an_answer_that_has_begun_may_take_its_time(client: Client, site: Origin) -> None:
    """Three pieces, further apart than the deadlines for the beginning."""
    for path in ("/request", "/attempt"):
        client.send(get(path))
        origin = site.accept()
        origin.request()
        origin.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
        client.socket.settimeout(0.15)
        for piece in "abc":
            with pytest.raises(TimeoutError):
                client.until(b"never")
            origin.send(piece)
        client.socket.settimeout(10)
        assert client.answer().body == b"abc"
        origin.close()


def test_timed_out_attempts_are_tried_again(client: Client, site: Origin, gateway: Gateway) -> None:
    client.send(get("/retry"))
    for _ in range(2):
        origin = site.accept()
        assert origin.request() == forwarded("GET /retry HTTP/1.1", "host: a.test")
        origin.ended()
    origin = site.accept()
    origin.request()
    origin.ok("third")
    assert client.answer().body == b"third"
    assert gateway.log()[0]["attempts"] == 3


def test_answers_of_the_codes_named_are_tried_again(client: Client, site: Origin) -> None:
    client.send(get("/retry"))
    for _ in range(2):
        origin = site.accept()
        origin.request()
        origin.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nsorry")
        assert origin.rest() == b""
    origin = site.accept()
    origin.request()
    origin.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nlast")
    answer = client.answer()
    assert (answer.status, answer.body) == (503, b"last")
    client.kept()
    site.untouched()


def test_a_refused_connection(client: Client, gateway: Gateway, site: Origin) -> None:
    site.close()
    client.send(f"POST / HTTP/1.1\r\n{HOST}Content-Length: 5\r\n\r\nhello")
    assert client.answer().status == 503
    client.kept()


def test_a_cluster_without_endpoints(client: Client, gateway: Gateway) -> None:
    gateway.set_endpoints("site", [])
    client.send(get("/"))
    assert client.answer().status == 503
    client.kept()


def test_a_connection_that_does_not_come_up(client: Client, gateway: Gateway) -> None:
    """A listening socket whose queue is full answers no SYN."""
    dark = socket.socket()
    dark.bind(("127.0.0.1", 0))
    dark.listen(0)
    host, port = dark.getsockname()
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex((host, port))
        fillers.append(filler)
    gateway.set_endpoints("dark", [(host.encode(), port, 1, b"")])
    client.send(get("/dark"))
    assert client.answer().status == 503
    client.kept()
    for each in (*fillers, dark):
        each.close()


def test_requests_wait_for_a_connection_up_to_a_limit(connect: Connect, gateway: Gateway, settled: None) -> None:
    narrow = Origin(gateway, "narrow")
    clients = [connect() for _ in range(3)]
    clients[0].send(get("/narrow/0"))
    origin = narrow.accept()
    assert origin.request().startswith(b"GET /narrow/0 ")
    clients[1].send(get("/narrow/1"))
    gateway.turn()
    clients[2].send(get("/narrow/2"))
    assert clients[2].answer().status == 503
    clients[2].kept()
    narrow.untouched()
    origin.ok("0")
    assert clients[0].answer().body == b"0"
    assert origin.request().startswith(b"GET /narrow/1 ")
    origin.ok("1")
    assert clients[1].answer().body == b"1"
    narrow.close()


def test_a_client_that_leaves_gives_up_its_place(connect: Connect, gateway: Gateway, settled: None) -> None:
    narrow = Origin(gateway, "narrow")
    clients = [connect() for _ in range(3)]
    clients[0].send(get("/narrow/0"))
    origin = narrow.accept()
    origin.request()
    clients[1].send(get("/narrow/1"))
    gateway.turn()
    clients[1].reset()
    gateway.turn()
    clients[2].send(get("/narrow/2"))
    origin.ok("0")
    assert clients[0].answer().body == b"0"
    assert origin.request().startswith(b"GET /narrow/2 ")
    origin.ok("2")
    assert clients[2].answer().body == b"2"
    narrow.close()
