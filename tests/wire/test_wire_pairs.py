"""Every pair of protocols carries a message with its meaning: HTTP/1.1 and HTTP/2 with clients, and either with origins.

One script for all four: content, trailers, 1xx, answers that come early, resets from either side, messages that end too soon,
half-closed tunnels. A message that was broken off never looks complete on the other side.
"""

import base64
from collections.abc import Iterator
from typing import Any

import h2.events
import h2.settings
import pytest
from conftest import Connect
from h2bench import H2Client, H2Origin
from wirebench import Client, Gateway, Origin, OriginWire, raw

CONFIG = """
listeners:
  - {name: web, port: 8080}
routes:
  - name: two
    hostnames: [two.test]
    rules: [{backendRefs: [{name: h2site}]}]
  - name: one
    hostnames: [one.test]
    rules: [{backendRefs: [{name: site}]}]
clusters:
  - {name: site, endpoints: ["127.0.0.1:1"]}
  - {name: h2site, protocol: HTTP2, endpoints: ["127.0.0.1:1"]}
"""
Fields = list[tuple[str, str]]
BIG = bytes(range(256)) * 800


class OneClient:
    """A client of HTTP/1.1 with one request."""

    def __init__(self, wire: Client, host: str) -> None:
        self.wire, self.host = wire, host

    def start(self, method: str, *fields: tuple[str, str], length: int | None = None, content: bool = True) -> None:
        framing = f"Content-Length: {length}\r\n" if length is not None else "Transfer-Encoding: chunked\r\n" if content else ""
        more = "".join(f"{name}: {value}\r\n" for name, value in fields)
        self.chunked = content and length is None
        self.wire.send(f"{method} /a HTTP/1.1\r\nHost: {self.host}\r\nConnection: TE\r\nTE: trailers\r\n{more}{framing}\r\n")

    def send(self, data: bytes | str) -> None:
        piece = raw(data)
        self.wire.send(b"%x\r\n%s\r\n" % (len(piece), piece) if self.chunked else piece)

    def end(self, *trailers: tuple[str, str]) -> None:
        if self.chunked:
            self.wire.send("0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in trailers) + "\r\n")

    def head(self) -> tuple[int, dict[str, str]]:
        """Status and fields of the next head, final or not."""
        first, *lines = self.wire.until(b"\r\n\r\n").decode().split("\r\n")[:-2]
        self.fields = dict(line.split(": ", 1) for line in lines)
        return int(first.split()[1]), self.fields

    def content(self) -> tuple[bytes, Fields]:
        """All of it and its trailers."""
        if "content-length" in self.fields:
            return self.wire.exactly(int(self.fields["content-length"])), []
        body, trailers, _ = self.wire.chunks()
        return body, trailers

    def broken(self) -> bytes:
        """The answer is broken off; what came of it, framing included."""
        got = self.wire.rest()
        assert not got.endswith(b"0\r\n\r\n")
        return got

    def leave(self) -> None:
        self.wire.reset()

    def upgrade(self) -> None:
        key = base64.b64encode(b"0123456789abcdef").decode()
        self.wire.send(
            f"GET /a HTTP/1.1\r\nHost: {self.host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        )

    def opened(self) -> None:
        assert self.head()[0] == 101
        self.chunked = False

    def read(self, n: int) -> bytes:
        return self.wire.exactly(n)

    def finish(self) -> None:
        self.wire.half_close()

    def ended(self) -> bool:
        return self.wire.rest() == b""


class TwoClient:
    """The same over HTTP/2."""

    def __init__(self, wire: Client, host: str) -> None:
        self.peer, self.host = H2Client(wire), host
        self.heads = 0
        self.taken = 0

    def start(self, method: str, *fields: tuple[str, str], length: int | None = None, content: bool = True) -> None:
        more = [("te", "trailers"), *fields, *([("content-length", str(length))] if length is not None else [])]
        self.left = length
        self.stream = self.peer.ask("/a", *more, method=method, host=self.host, end=not content)

    def send(self, data: bytes | str) -> None:
        self.left = None if self.left is None else self.left - len(data)
        self.peer.send_data(self.stream, data, end=self.left == 0)

    def end(self, *trailers: tuple[str, str]) -> None:
        if trailers:
            self.peer.send_headers(self.stream, trailers, end=True)
        elif self.left != 0:
            self.peer.send_data(self.stream, b"", end=True)

    def head(self) -> tuple[int, dict[str, str]]:
        kinds = (h2.events.InformationalResponseReceived, h2.events.ResponseReceived)

        def there() -> Any:
            heads = [event for event in self.peer.seen[self.stream] if isinstance(event, kinds)]
            return heads[self.heads] if len(heads) > self.heads else None

        fields = dict(self.peer.until(there).headers)
        self.heads += 1
        return int(fields.pop(":status")), fields

    def content(self) -> tuple[bytes, Fields]:
        self.peer.wait(h2.events.StreamEnded, self.stream)
        trailers = self.peer.find(h2.events.TrailersReceived, self.stream)
        return self.peer.body(self.stream), list(trailers.headers) if trailers else []

    def broken(self) -> bytes:
        reset = self.peer.wait(h2.events.StreamReset, self.stream)
        assert reset.error_code != 0 and not self.peer.find(h2.events.StreamEnded, self.stream)
        return self.peer.body(self.stream)

    def leave(self) -> None:
        self.peer.reset(self.stream)

    def upgrade(self) -> None:
        self.peer.wait(h2.events.RemoteSettingsChanged)
        self.stream = self.peer.h2.get_next_available_stream_id()
        self.left = None
        head = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/a"), (":authority", self.host)]
        self.peer.send_headers(self.stream, [*head, ("sec-websocket-version", "13")])

    def opened(self) -> None:
        assert self.head()[0] == 200

    def read(self, n: int) -> bytes:
        self.peer.until(lambda: len(self.peer.body(self.stream)) >= self.taken + n)
        self.taken += n
        return self.peer.body(self.stream)[self.taken - n : self.taken]

    def finish(self) -> None:
        self.peer.send_data(self.stream, b"", end=True)

    def ended(self) -> bool:
        return self.peer.wait(h2.events.StreamEnded, self.stream) is not None


class OneOrigin:
    """An origin of HTTP/1.1 that has one request."""

    def __init__(self, wire: OriginWire) -> None:
        self.wire = wire

    def head(self) -> dict[str, str]:
        first, *lines = self.wire.until(b"\r\n\r\n").decode().split("\r\n")[:-2]
        self.fields = dict(line.lower().split(": ", 1) for line in lines) | {":method": first.split()[0]}
        return self.fields

    def read(self, n: int) -> bytes:
        """So much of the content, at least."""
        got = b""
        while len(got) < n:
            got += self.chunk() if "transfer-encoding" in self.fields else self.wire.exactly(n)
        return got

    def chunk(self) -> bytes:
        return self.wire.exactly(int(self.wire.until(b"\r\n"), 16) + 2)[:-2]

    def content(self) -> tuple[bytes, Fields]:
        if "transfer-encoding" not in self.fields:
            return self.wire.exactly(int(self.fields.get("content-length", 0))), []
        got = b""
        while piece := self.chunk_or_last():
            got += piece
        lines = self.trailer_lines()
        return got, [(name, value) for name, _, value in (line.partition(": ") for line in lines)]

    def chunk_or_last(self) -> bytes:
        size = int(self.wire.until(b"\r\n"), 16)
        return self.wire.exactly(size + 2)[:-2] if size else b""

    def trailer_lines(self) -> list[str]:
        lines = []
        while (line := self.wire.until(b"\r\n")) != b"\r\n":
            lines.append(line.decode().strip())
        return lines

    def answer(self, status: int, *fields: tuple[str, str], length: int | None = None, content: bool = True) -> None:
        self.chunked = length is None and content
        framing = f"Content-Length: {length}\r\n" if length is not None else "Transfer-Encoding: chunked\r\n" if content else ""
        more = "".join(f"{name}: {value}\r\n" for name, value in fields)
        self.wire.send(f"HTTP/1.1 {status} X\r\n{more}{framing}\r\n")

    def send(self, data: bytes | str) -> None:
        piece = raw(data)
        self.wire.send(b"%x\r\n%s\r\n" % (len(piece), piece) if self.chunked else piece)

    def end(self, *trailers: tuple[str, str]) -> None:
        if self.chunked:
            self.wire.send("0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in trailers) + "\r\n")

    def leave(self) -> None:
        self.wire.close()

    def abandoned(self) -> bytes:
        """The gateway let go; what came before, and never an end of the request."""
        got = self.wire.rest()
        assert b"0\r\n\r\n" not in got
        return got

    def switch(self) -> None:
        assert self.head()[":method"] == "GET"
        self.wire.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        self.chunked = False

    def take(self, n: int) -> bytes:
        return self.wire.exactly(n)

    def finish(self) -> None:
        self.wire.half_close()

    def ended(self) -> bool:
        return self.wire.rest() == b""


class TwoOrigin:
    """The same over HTTP/2."""

    def __init__(self, wire: OriginWire) -> None:
        self.peer = H2Origin(wire, settings={h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})
        self.taken = 0

    def head(self) -> dict[str, str]:
        self.stream, fields = self.peer.request()
        return fields

    def read(self, n: int) -> bytes:
        self.peer.until(lambda: len(self.peer.body(self.stream)) >= n)
        return self.peer.body(self.stream)

    def content(self) -> tuple[bytes, Fields]:
        self.peer.wait(h2.events.StreamEnded, self.stream)
        trailers = self.peer.find(h2.events.TrailersReceived, self.stream)
        return self.peer.body(self.stream), list(trailers.headers) if trailers else []

    def answer(self, status: int, *fields: tuple[str, str], length: int | None = None, content: bool = True) -> None:
        self.left = length
        more = [("content-length", str(length))] if length is not None else []
        end = status >= 200 and (not content or length == 0)
        self.peer.send_headers(self.stream, [(":status", str(status)), *fields, *more], end=end)

    def send(self, data: bytes | str) -> None:
        self.left = None if self.left is None else self.left - len(data)
        self.peer.send_data(self.stream, data, end=self.left == 0)

    def end(self, *trailers: tuple[str, str]) -> None:
        if trailers:
            self.peer.send_headers(self.stream, trailers, end=True)
        elif self.left != 0:
            self.peer.send_data(self.stream, b"", end=True)

    def leave(self) -> None:
        self.peer.reset(self.stream, 2)

    def abandoned(self) -> bytes:
        self.peer.wait(h2.events.StreamReset, self.stream)
        assert not self.peer.find(h2.events.StreamEnded, self.stream)
        return self.peer.body(self.stream)

    def switch(self) -> None:
        fields = self.head()
        assert (fields[":method"], fields[":protocol"]) == ("CONNECT", "websocket")
        self.left = None
        self.peer.send_headers(self.stream, [(":status", "200")])

    def take(self, n: int) -> bytes:
        self.peer.until(lambda: len(self.peer.body(self.stream)) >= self.taken + n)
        self.taken += n
        return self.peer.body(self.stream)[self.taken - n : self.taken]

    def finish(self) -> None:
        self.peer.send_data(self.stream, b"", end=True)

    def ended(self) -> bool:
        return self.peer.wait(h2.events.StreamEnded, self.stream) is not None


class Pair:
    """A client and, once its request is there, the origin that has it."""

    def __init__(self, client: Any, listening: Origin, kind: Any, gateway: Gateway) -> None:
        self.client, self._listening, self._kind, self.gateway = client, listening, kind, gateway

    def origin(self) -> Any:
        return self._kind(self._listening.accept())


@pytest.fixture(params=["h1-h1", "h1-h2", "h2-h1", "h2-h2"])
def pair(request: pytest.FixtureRequest, connect: Connect, gateway: Gateway, settled: None) -> Iterator[Pair]:
    down, up = request.param.split("-")
    listening = Origin(gateway, "site" if up == "h1" else "h2site")
    host = "one.test" if up == "h1" else "two.test"
    client = OneClient(connect(), host) if down == "h1" else TwoClient(connect(), host)
    yield Pair(client, listening, OneOrigin if up == "h1" else TwoOrigin, gateway)
    listening.close()


@pytest.mark.parametrize("length", [None, len(BIG)])
def test_content_both_ways(pair: Pair, length: int | None) -> None:
    client = pair.client
    client.start("POST", length=length)
    client.send(BIG[:50_000])
    origin = pair.origin()
    assert origin.head()[":method"] == "POST"
    client.send(BIG[50_000:150_000])
    client.send(BIG[150_000:])
    client.end()
    assert origin.content() == (BIG, [])
    origin.answer(200, length=length)
    for at in range(0, len(BIG), 64_000):
        origin.send(BIG[at : at + 64_000])
    origin.end()
    status, fields = client.head()
    assert status == 200 and fields.get("content-length") == (str(length) if length else None)
    assert client.content() == (BIG, [])


def test_trailers_both_ways(pair: Pair) -> None:
    client = pair.client
    client.start("POST")
    client.send("hello")
    client.end(("x-sum", "1"))
    origin = pair.origin()
    origin.head()
    assert origin.content() == (b"hello", [("x-sum", "1")])
    origin.answer(200)
    origin.send("world")
    origin.end(("x-sum", "2"))
    assert client.head()[0] == 200
    assert client.content() == (b"world", [("x-sum", "2")])


def test_1xx_come_in_order_before_the_final_head(pair: Pair) -> None:
    client = pair.client
    client.start("GET", content=False)
    origin = pair.origin()
    origin.head()
    origin.answer(103, ("link", "</a>"), content=False)
    origin.answer(103, ("link", "</b>"), content=False)
    origin.answer(200, length=2)
    origin.send("ok")
    assert [client.head() for _ in range(2)] == [(103, {"link": "</a>"}), (103, {"link": "</b>"})]
    assert client.head()[0] == 200
    assert client.content() == (b"ok", [])


def test_an_answer_that_comes_before_the_content_does(pair: Pair) -> None:
    """It arrives at once; the origin never sees an end of a request that had none."""
    client = pair.client
    client.start("POST")
    client.send("part")
    origin = pair.origin()
    origin.head()
    assert origin.read(4) == b"part"
    origin.answer(413, length=3)
    origin.send("big")
    assert client.head()[0] == 413
    if isinstance(client, TwoClient):
        assert client.content() == (b"big", [])
        # the rest is not wanted, which is no error (RFC 9113 §8.1)
        assert client.peer.wait(h2.events.StreamReset, client.stream).error_code == 0
    else:
        assert client.fields["connection"] == "close" and client.content() == (b"big", [])
        assert client.wire.rest() == b""
    origin.abandoned()


@pytest.mark.parametrize("length", [None, 10])
def test_an_answer_that_is_broken_off_never_looks_complete(pair: Pair, length: int | None) -> None:
    client = pair.client
    client.start("GET", content=False)
    origin = pair.origin()
    origin.head()
    origin.answer(200, length=length)
    origin.send("hello")
    assert client.head()[0] == 200
    origin.leave()
    assert b"hello" in client.broken()
    (line,) = pair.gateway.log()
    assert line["flags"] == "UC"


@pytest.mark.parametrize("length", [None, 10])
def test_a_request_that_is_broken_off_never_looks_complete(pair: Pair, length: int | None) -> None:
    client = pair.client
    client.start("POST", length=length)
    client.send("hello")
    origin = pair.origin()
    origin.head()
    assert origin.read(5) == b"hello"
    client.leave()
    origin.abandoned()
    (line,) = pair.gateway.log()
    assert line["flags"] == "DC"


def test_a_client_that_leaves_in_the_midst_of_its_answer_cancels_it(pair: Pair) -> None:
    client = pair.client
    client.start("GET", content=False)
    origin = pair.origin()
    origin.head()
    origin.answer(200)
    origin.send("hello")
    assert client.head()[0] == 200
    client.leave()
    if isinstance(origin, TwoOrigin):
        assert origin.peer.wait(h2.events.StreamReset, origin.stream).error_code == 8
    else:
        origin.wire.rest()
    (line,) = pair.gateway.log()
    assert line["flags"] == "DC"


@pytest.mark.parametrize("first", ["client", "origin"])
def test_a_tunnel_ends_one_side_at_a_time(pair: Pair, first: str) -> None:
    """Whoever has finished speaking still hears the other."""
    client = pair.client
    client.upgrade()
    origin = pair.origin()
    origin.switch()
    client.opened()
    client.send("up")
    assert origin.take(2) == b"up"
    origin.send("down")
    assert client.read(4) == b"down"
    if first == "client":
        client.finish()
        assert origin.ended()
        origin.send("last")
        assert client.read(4) == b"last"
        origin.finish()
        assert client.ended()
    else:
        origin.finish()
        assert client.ended()
        client.send("last")
        assert origin.take(4) == b"last"
        client.finish()
        assert origin.ended()
