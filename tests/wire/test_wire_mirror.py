"""Copies of requests for other clusters: complete, ignored, and never felt by the request."""

from collections import Counter
from collections.abc import Iterator

import h2.events
import pytest
from conftest import Connect
from h2bench import H2Client, H2Origin
from until import wait_until
from wirebench import Client, Gateway, Origin, OriginWire

CONFIG = """
listeners: [{name: web, port: 8080}]
routes:
  - name: all
    rules:
      - matches: [{path: {value: /two}}]
        filters:
          - {type: RequestMirror, requestMirror: {backendRef: {name: copy}}}
          - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, value: here}]}}
          - {type: RequestMirror, requestMirror: {backendRef: {name: h2copy}}}
        backendRefs: [{name: site}]
      - matches: [{path: {value: /share}}]
        filters: [{type: RequestMirror, requestMirror: {backendRef: {name: copy}, percent: 25}}]
        backendRefs: [{name: site}]
      - matches: [{path: {value: /none}}]
        filters: [{type: RequestMirror, requestMirror: {backendRef: {name: copy}, fraction: {numerator: 0}}}]
        backendRefs: [{name: site}]
      - matches: [{path: {value: /lost}}]
        filters: [{type: RequestMirror, requestMirror: {backendRef: {name: nowhere}}}]
        backendRefs: [{name: site}]
      - matches: [{path: {value: /}}]
        filters: [{type: RequestMirror, requestMirror: {backendRef: {name: copy}}}]
        backendRefs: [{name: site}]
clusters:
  - {name: site, endpoints: ["127.0.0.1:1"]}
  - {name: copy, endpoints: ["127.0.0.1:1"], outlierDetection: {consecutiveErrors: 0}}
  - {name: h2copy, protocol: HTTP2, endpoints: ["127.0.0.1:1"]}
  - {name: nowhere, endpoints: []}
"""
PROBLEMS = ("has no endpoints",)
GET = "GET {} HTTP/1.1\r\nHost: a.test\r\n\r\n"
POST = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n"


@pytest.fixture
def copy(gateway: Gateway, settled: None) -> Iterator[Origin]:
    origin = Origin(gateway, "copy")
    yield origin
    origin.close()


@pytest.fixture
def h2copy(gateway: Gateway, settled: None) -> Iterator[Origin]:
    origin = Origin(gateway, "h2copy")
    yield origin
    origin.close()


class Counted:
    """What was counted of mirrors since it was made."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.before = self.now()

    def now(self) -> Counter[str]:
        return Counter({name: self.gateway.scalar(name) for name in ("mirrors", "mirrors_dropped", "mirrors_failed")})

    def becomes(self, mirrors: int = 0, dropped: int = 0, failed: int = 0) -> None:
        expected = Counter({"mirrors": mirrors, "mirrors_dropped": dropped, "mirrors_failed": failed})
        wait_until(lambda: self.now() - self.before == +expected and not self.gateway.scalar("mirrors_active"), 10)


@pytest.fixture
def counted(gateway: Gateway) -> Counted:
    return Counted(gateway)


def passed_on(client: Client, site: Origin, path: str = "/") -> OriginWire:
    client.send(GET.format(path))
    wire = site.accept()
    wire.request()
    wire.ok()
    assert client.answer().body == b"ok"
    return wire


def test_http_route_request_mirror(client: Client, site: Origin, copy: Origin, counted: Counted) -> None:
    """Head and content are the same, and what the mirror says is nobody's; its connection is used again."""
    client.send(POST.format(5) + "hello")
    wire, other = site.accept(), copy.accept()
    request = wire.request(5)
    assert request.startswith(b"POST / HTTP/1.1\r\n") and request.endswith(b"\r\n\r\nhello")
    assert other.request(5) == request
    other.send("HTTP/1.1 500 No\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nbad")
    wire.ok()
    assert client.answer().body == b"ok"
    counted.becomes(1)
    for _ in range(3):
        client.send(GET.format("/again"))
        assert wire.request() == other.request()
        wire.ok()
        other.ok("x" * 1000)
        assert client.answer().body == b"ok"
        client.gateway.turn()
    counted.becomes(4)
    copy.untouched()


def test_a_mirror_sees_content_as_it_comes(client: Client, site: Origin, copy: Origin, counted: Counted) -> None:
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTrailer: x-t\r\n\r\n3\r\nabc\r\n")
    wire, other = site.accept(), copy.accept()
    assert wire.request("abc\r\n") == other.request("abc\r\n")
    client.send("4\r\ndefg\r\n")
    assert wire.until(b"defg\r\n") == other.until(b"defg\r\n") == b"4\r\ndefg\r\n"
    client.send("0\r\nx-t: 1\r\n\r\n")
    assert wire.until(b"\r\n\r\n") == other.until(b"\r\n\r\n") == b"0\r\nx-t: 1\r\n\r\n"
    wire.ok()
    assert client.answer().body == b"ok"
    other.ok()
    counted.becomes(1)


def test_http_route_request_multiple_mirrors(client: Client, site: Origin, copy: Origin, h2copy: Origin, counted: Counted) -> None:
    """Both see the head as the rule's filters have made it, in whatever protocol they speak."""
    client.send("POST /two HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello")
    wire, one = site.accept(), copy.accept()
    two = H2Origin(h2copy.accept())
    request = wire.request(5)
    assert b"\r\nx-set: here\r\n" in request and one.request(5) == request
    stream, head = two.request()
    two.wait(h2.events.StreamEnded, stream)
    assert (head[":method"], head[":path"], head["x-set"], two.body(stream)) == ("POST", "/two", "here", b"hello")
    two.respond(stream, "no")
    one.ok()
    wire.ok()
    assert client.answer().body == b"ok"
    counted.becomes(2)


def test_h2_clients_are_mirrored(connect: Connect, site: Origin, copy: Origin, counted: Counted) -> None:
    client = H2Client(connect())
    stream = client.ask("/", method="POST", end=False)
    client.send_data(stream, "hello")
    wire, other = site.accept(), copy.accept()
    assert wire.request("hello\r\n") == other.request("hello\r\n")
    client.send_data(stream, "world", end=True)
    assert wire.until(b"0\r\n\r\n") == other.until(b"0\r\n\r\n") == b"5\r\nworld\r\n0\r\n\r\n"
    wire.ok()
    other.ok()
    assert client.answer(stream)[1] == b"ok"
    counted.becomes(1)


def test_http_route_request_percentage_mirror(client: Client, site: Origin, copy: Origin, counted: Counted) -> None:
    """25 % of 400: 100, and 8.66 is one standard deviation."""
    wire = passed_on(client, site, "/share")
    copy.socket.setblocking(False)
    for _ in range(399):
        client.send(GET.format("/share"))
        wire.request()
        wire.ok()
        client.answer()
    begun = counted.now()["mirrors"] - counted.before["mirrors"]
    assert 55 < begun < 145
    copy.close()
    counted.becomes(begun, failed=begun)


def test_a_share_of_nothing(client: Client, site: Origin, copy: Origin, counted: Counted) -> None:
    passed_on(client, site, "/none")
    copy.untouched()
    counted.becomes(0)


def test_a_request_does_not_wait_for_its_mirror(
    client: Client, site: Origin, copy: Origin, counted: Counted, gateway: Gateway
) -> None:
    """The mirror's endpoint takes the connection and says nothing; its end is not the request's."""
    gateway.log()
    wire = passed_on(client, site)
    other = copy.accept()
    other.request()
    for _ in range(3):
        client.send(GET.format("/"))
        wire.request()
        wire.ok()
        assert client.answer().body == b"ok"
    assert gateway.scalar("mirrors_active") == 4
    other.close()
    for _ in range(3):
        copy.accept().close()
    counted.becomes(4, failed=4)
    failed = [each for each in gateway.log() if each["detail"]]
    told = {(each["cluster"], each["detail"], each["status"], each["route"]) for each in failed}
    assert told == {("copy", "mirror_reset", 0, "all")}


def test_a_mirror_without_an_endpoint(client: Client, site: Origin, counted: Counted, gateway: Gateway) -> None:
    gateway.log()
    passed_on(client, site, "/lost")
    counted.becomes(1, failed=1)
    (failed,) = [each for each in gateway.log() if each["status"] == 0]
    assert (failed["detail"], failed["cluster"], failed["flags"]) == ("mirror_no_endpoint", "nowhere", "UH")


def test_a_mirror_that_refuses_connections(client: Client, site: Origin, copy: Origin, counted: Counted, gateway: Gateway) -> None:
    copy.socket.close()
    gateway.log()
    passed_on(client, site)
    counted.becomes(1, failed=1)
    assert "mirror_connect_failed" in [each["detail"] for each in gateway.log()]


def test_a_mirror_that_speaks_no_http(client: Client, site: Origin, copy: Origin, counted: Counted) -> None:
    passed_on(client, site)
    other = copy.accept()
    other.request()
    other.send("what?\r\n\r\n")
    counted.becomes(1, failed=1)


def test_a_dead_pooled_connection_costs_no_copy(client: Client, site: Origin, copy: Origin, counted: Counted) -> None:
    wire = passed_on(client, site)
    other = copy.accept()
    other.request()
    other.ok()
    counted.becomes(1)
    with client.gateway.stopped():
        other.close()
        client.send(GET.format("/second"))
    assert wire.request().startswith(b"GET /second ")
    again = copy.accept()
    assert again.request().startswith(b"GET /second ")
    again.ok()
    wire.ok()
    client.answer()
    counted.becomes(2)


def test_a_slow_mirror_is_dropped_and_the_request_goes_on(client: Client, site: Origin, copy: Origin, counted: Counted) -> None:
    """Nobody reads at the mirror: what is held for it is bounded, and the content reaches the backend whole."""
    size = 64 << 20
    piece = bytes(1 << 16)
    client.send(POST.format(size))
    wire = site.accept()
    wire.request()
    copy.accept()
    got = 0
    for _ in range(size // len(piece)):
        client.socket.sendall(piece)
        got += len(wire.exactly(len(piece)))
    assert got == size
    wire.ok()
    assert client.answer().body == b"ok"
    counted.becomes(1, dropped=1)


@pytest.mark.parametrize("how", ["client", "backend"])
def test_half_a_request_is_nobodys(client: Client, site: Origin, copy: Origin, counted: Counted, how: str) -> None:
    client.send(POST.format(10) + "hello")
    wire, other = site.accept(), copy.accept()
    wire.request(5), other.request(5)
    if how == "client":
        client.reset()
    else:
        wire.send("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        assert client.answer().status == 413
    assert other.rest() == b""
    counted.becomes(1, dropped=1)


def test_an_upgrade_is_not_mirrored(client: Client, site: Origin, copy: Origin, counted: Counted) -> None:
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n")
    wire = site.accept()
    wire.request()
    wire.ok()
    client.answer()
    copy.untouched()
    counted.becomes(0)


def test_mirrors_of_a_snapshot_that_is_gone(client: Client, gateway: Gateway, site: Origin, copy: Origin, counted: Counted) -> None:
    client.send(POST.format(10) + "hello")
    wire, other = site.accept(), copy.accept()
    wire.request(5), other.request(5)
    gateway.swap("listeners: [{name: web, port: 8080}]")
    client.send("world")
    assert wire.exactly(5) == other.exactly(5) == b"world"
    wire.ok()
    assert client.answer().body == b"ok"
    other.ok()
    counted.becomes(1)
    gateway.swap(CONFIG.replace("endpoints: []", 'endpoints: ["127.0.0.1:1"]'))


def test_content_that_waits_for_a_mirror_comes_whole_and_once(
    client: Client, site: Origin, copy: Origin, h2copy: Origin, counted: Counted
) -> None:
    """More than the window of its stream and the queue of its connection: the rest is held, and none is missing in the end."""
    piece = 1 << 14
    content = bytes(range(256)) * (16 * piece // 256)
    before = client.gateway.scalar("upstream_sent_bytes")
    client.send(f"POST /two HTTP/1.1\r\nHost: a.test\r\nContent-Length: {len(content)}\r\n\r\n")
    wire, one, two = site.accept(), copy.accept(), H2Origin(h2copy.accept())
    wire.request()
    one.request()
    for start in range(0, len(content), piece):
        client.send(content[start : start + piece])
        assert wire.exactly(piece) == one.exactly(piece) == content[start : start + piece]
    wire.ok()
    one.ok()
    assert client.answer().body == b"ok"
    waits = 3 * len(content) - (client.gateway.scalar("upstream_sent_bytes") - before)
    assert waits > 65536 + 2 * piece, "nothing was held: this test no longer reaches what it is for"
    stream, _ = two.request()
    two.wait(h2.events.StreamEnded, stream)
    assert two.body(stream) == content
    two.respond(stream)
    counted.becomes(2)
