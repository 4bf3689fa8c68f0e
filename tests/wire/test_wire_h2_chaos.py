"""Clients and origins of HTTP/2 (and origins of HTTP/1.1) that do anything at any time, seeded: the engine survives all of it, says
nothing on standard error, serves a clean client beside it, and has let go of everything when they are gone.

GW_SIM_SEED repeats one run, GW_SIM_RUNS makes more.
"""

import contextlib
import os
import random
import select
import socket
from collections.abc import Iterator

import pytest
from h2frames import (
    ACK,
    CONTINUATION,
    DATA,
    HEADERS,
    OK,
    PING,
    PREFACE,
    PRIORITY,
    PRIORITY_UPDATE,
    SETTINGS,
    Pairs,
    Speaker,
    data,
    frame,
    goaway,
    rst,
    settings,
    update,
)
from until import wait_until
from wirebench import Client, Gateway, name_id

RUNS = int(os.environ.get("GW_SIM_RUNS", "6"))
SEEDS = [int(os.environ["GW_SIM_SEED"])] if "GW_SIM_SEED" in os.environ else range(RUNS)
STEPS, CLIENTS = 600, 6
CONFIG = """
listeners:
  - {name: web, port: 8080, limits: {bodyTimeout: 300ms, maxRequestsPerConnection: 200}}
routes:
  - name: two
    hostnames: [two.test]
    rules: [{backendRefs: [{name: h2site}], retry: {attempts: 1, codes: [503]}, timeouts: {backendRequest: 400ms}}]
  - name: one
    hostnames: [one.test]
    rules: [{backendRefs: [{name: site}], retry: {attempts: 1, codes: [503]}, timeouts: {backendRequest: 400ms}}]
clusters:
  - {name: site, endpoints: ["127.0.0.1:1"], outlierDetection: {consecutiveErrors: 0}}
  - {name: h2site, protocol: HTTP2, endpoints: ["127.0.0.1:1"], outlierDetection: {consecutiveErrors: 0}}
"""
CALL: Pairs = [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
TRAILERS: Pairs = [(b"grpc-status", b"0")]


class End:
    """One end of a connection whose other end is the engine's."""

    def __init__(self, rng: random.Random, sock: socket.socket) -> None:
        self.rng, self.socket, self.speaker, self.held, self.open = rng, sock, Speaker(), b"", True
        sock.setblocking(False)

    def send(self, *pieces: bytes) -> None:
        """As much as is taken; the rest is lost, and cuts a frame in two."""
        if self.open:
            try:
                self.socket.send(b"".join(pieces))
            except BlockingIOError:
                pass
            except OSError:
                self.close()

    def read(self) -> bytes:
        if not self.open:
            return b""
        try:
            got = self.socket.recv(self.rng.choice([100, 1 << 16]))
        except BlockingIOError:
            return b""
        except OSError:
            got = b""
        if not got:
            self.close()
        return got

    def close(self) -> None:
        self.open = False
        self.socket.close()


class Anyone(End):
    """A client that knows the protocol, and not how to behave."""

    def __init__(self, rng: random.Random, sock: socket.socket) -> None:
        super().__init__(rng, sock)
        self.streams: list[int] = []
        self.next = 1
        self.send(PREFACE, settings((4, rng.choice([0, 1, 65535, 1 << 20]))), frame(SETTINGS, ACK))

    def act(self) -> None:
        rng = self.rng
        what = rng.randrange(16)
        stream = rng.choice(self.streams) if self.streams else 1
        if what < 5 or not self.streams:
            self.ask()
        elif what < 8:
            padding = rng.choice([None, None, 0, 100])
            self.send(data(stream, rng.randbytes(rng.choice([0, 1, 500, 16000])), rng.random() < 0.3, padding))
        elif what == 8:
            self.send(rst(stream, rng.choice([0, 2, 8])))
        elif what == 9:
            self.send(update(rng.choice([0, stream]), rng.choice([1, 1000, 1 << 20])))
        elif what == 10:
            self.send(frame(PRIORITY_UPDATE, 0, 0, stream.to_bytes(4, "big") + rng.choice([b"u=0", b"i", b"u=7, i", b"?"])))
        elif what == 11:
            self.send(self.speaker.headers(stream, [(b"x-end", b"1")]))
        elif what == 12:
            self.send(settings((4, rng.choice([0, 1000, 1 << 20])), (1, rng.choice([0, 100, 4096]))))
        elif what == 13:
            self.send(frame(PING, rng.choice([0, ACK]), 0, rng.choice([b"12345678", b"isthmus."])))
        elif what == 14 and rng.random() < 0.1:
            wrong = frame(PRIORITY, 0, stream, b"abc"), frame(CONTINUATION, 4, stream)
            self.send(rng.choice([rng.randbytes(30), goaway(0), *wrong]))
        elif rng.random() < 0.05:
            self.close()
        self.read()

    def ask(self) -> None:
        rng = self.rng
        host = rng.choice([b"one.test", b"two.test", b"none.test"])
        start = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", host), (b":path", b"/" + b"p" * rng.choice([1, 300]))]
        kind = rng.randrange(6)
        if kind == 0:
            start[0] = (b":method", b"CONNECT")
            start.insert(1, (b":protocol", rng.choice([b"websocket", b"other"])))
        elif kind < 4:
            start[0] = (b":method", b"POST")
        more: Pairs = rng.choice([[], CALL, [*CALL, (b"grpc-timeout", b"100m")], [(b"priority", b"u=1, i")], [(b"bad Name", b"")]])
        length = [(b"content-length", b"1000")] if kind == 2 else []
        self.send(self.speaker.headers(self.next, [*start, *more, *length], end=kind > 3))
        self.streams = [*self.streams[-20:], self.next]
        self.next += 2


class OneOrigin(End):
    """An origin of HTTP/1.1 that answers what it likes."""

    ANSWERS = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\ngrpc-status: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\nPriority: u=0\r\n\r\n" + b"x" * 200000,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.1 204 No Content\r\n\r\nextra",
        b"garbage\r\n\r\n",
    )

    def act(self) -> None:
        self.held += self.read()
        if b"\r\n\r\n" in self.held and self.rng.random() < 0.7:
            self.held = b""
            self.send(self.rng.choice(self.ANSWERS))
        elif self.rng.random() < 0.05:
            self.send(b"3\r\nabc\r\n")
        elif self.rng.random() < 0.05:
            self.close()


class TwoOrigin(End):
    """An origin of HTTP/2 that answers what it likes."""

    def __init__(self, rng: random.Random, sock: socket.socket) -> None:
        super().__init__(rng, sock)
        self.streams: list[int] = []
        self.skip = len(PREFACE)
        most = rng.choice([1, 3, 1000])
        self.send(settings((4, rng.choice([0, 1000, 1 << 20])), (3, most), (8, rng.randrange(2))), frame(SETTINGS, ACK))

    def act(self) -> None:
        rng = self.rng
        got = self.read()
        self.held += got[self.skip :]
        self.skip -= min(self.skip, len(got))
        while len(self.held) >= 9 and len(self.held) >= (end := 9 + int.from_bytes(self.held[:3], "big")):
            kind, flags, stream = self.held[3], self.held[4], int.from_bytes(self.held[5:9], "big")
            if kind == HEADERS and stream not in self.streams:
                self.streams.append(stream)
            elif kind == PING and not flags & ACK:
                self.send(frame(PING, ACK, 0, self.held[9:end]))
            elif kind == DATA and rng.random() < 0.7:
                self.send(update(0, max(1, end - 9)), update(stream, max(1, end - 9)))
            self.held = self.held[end:]
        if not self.streams:
            return
        stream = rng.choice(self.streams)
        what = rng.randrange(14)
        if what < 4:
            more: Pairs = rng.choice([[], [(b"content-length", b"5")], [(b"priority", b"u=0")], CALL[:1]])
            self.send(self.speaker.headers(stream, [*OK, *more], end=rng.random() < 0.2))
        elif what < 8:
            self.send(data(stream, rng.randbytes(rng.choice([0, 5, 16000])), rng.random() < 0.4))
        elif what == 8:
            self.send(self.speaker.headers(stream, TRAILERS))
        elif what == 9:
            self.send(rst(stream, rng.choice([0, 2, 7, 8, 11])))
        elif what == 10:
            self.send(update(rng.choice([0, stream]), rng.choice([1, 1000, 1 << 20])))
        elif what == 11:
            self.send(settings((4, rng.choice([0, 1000, 1 << 20])), (3, rng.choice([0, 1, 100])), (1, rng.choice([0, 4096]))))
        elif what == 12:
            self.send(self.speaker.headers(stream, [(b":status", b"103"), (b"link", b"</a>")], end=False))
        elif rng.random() < 0.2:
            self.send(rng.choice([goaway(rng.choice([0, stream, 0x7FFFFFFF])), frame(77, 0, 0, b"x"), rng.randbytes(20)]))
        elif rng.random() < 0.2:
            self.close()


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    made = Gateway(CONFIG)
    yield made
    made.close()


def listening(gateway: Gateway, cluster: str) -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0), backlog=64)
    sock.setblocking(False)
    host, port = sock.getsockname()
    gateway.call(lambda engine: engine.set_endpoints(name_id("cluster", cluster), [(host.encode(), port, 1, b"")]))
    return sock


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_they_do_nothing_is_left_behind(gateway: Gateway, capfd: pytest.CaptureFixture[str], seed: int) -> None:
    rng = random.Random(f"chaos {seed}")
    servers = {listening(gateway, "site"): OneOrigin, listening(gateway, "h2site"): TwoOrigin}
    ends: list[Anyone | OneOrigin | TwoOrigin] = []
    try:
        for _ in range(STEPS):
            clients = [each for each in ends if isinstance(each, Anyone)]
            if len(clients) < CLIENTS:
                ends.append(Anyone(rng, socket.create_connection(gateway.address("web"))))
            for server in select.select(list(servers), [], [], 0)[0]:
                with contextlib.suppress(OSError):
                    ends.append(servers[server](rng, server.accept()[0]))
            for each in rng.sample(ends, min(len(ends), 8)):
                each.act()
            ends = [each for each in ends if each.open]
            if rng.random() < 0.3:
                gateway.turn()
            if rng.random() < 0.05:
                gateway.call(lambda engine: engine.on_tick())
        clean: Client = gateway.client()
        clean.kept()
        clean.close()
    finally:
        for each in ends:
            each.close()
        for server in servers:
            server.close()
    wait_until(lambda: not gateway.leaks(), 20)
    assert capfd.readouterr().err == ""
    # every exchange wrote its line, with a status that it may have
    lines = gateway.log()
    assert lines and all(line["status"] in (0, 101, *range(200, 600)) for line in lines)
