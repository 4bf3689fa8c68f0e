"""What a client can do wrong in TLS, at every step of it: an error, a counter, nothing that stays behind and no exception."""

import contextlib
import functools
import os
import random
import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty import Origin, polite
from gateway_process import Gateway, request
from hellos import real_hello
from pki import Authority, write_pair
from tls_peers import assert_nothing_raised, counter, until_quiet
from until import wait_until

AUTHORITY = Authority()
CONFIG = """\
accessLog: {{format: off}}
listeners:
  - name: web
    address: 127.0.0.1:0
    protocol: HTTPS
    tls: {{certificates: [{{cert: tls/web.crt, key: tls/web.key}}]}}
  - name: brief
    address: 127.0.0.2:0
    protocol: HTTPS
    limits: {{headerTimeout: 3s}}
    tls: {{certificates: [{{cert: tls/web.crt, key: tls/web.key}}]}}
routes:
  - {{name: all, rules: [{{backendRefs: [{{name: site}}]}}]}}
clusters:
  - {{name: site, endpoints: ["127.0.0.1:{port}"]}}
"""
GET = b"GET / HTTP/1.1\r\nHost: web.test\r\n\r\n"
FATAL, HANDSHAKE_FAILURE = 2, 40
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    home = tmp_path_factory.mktemp("bad-clients")
    write_pair(home / "tls", "web", AUTHORITY.issue("web.test"))
    with Origin(polite) as origin, pytest.MonkeyPatch.context() as patch:
        # so that a test which is not root may count the worker's descriptors
        patch.setenv("ISTHMUS_CORE_DUMPS", "1")
        (home / "gateway.yaml").write_text(CONFIG.format(port=origin.port))
        with Gateway(home / "gateway.yaml", workers=1) as running:
            yield running


@pytest.fixture(autouse=True)
def nothing_stays(gateway: Gateway) -> Iterator[None]:
    """After each test nobody is connected, the worker has the descriptors that it had, and it still serves."""
    assert Talk(gateway).shaken().ask().startswith(b"HTTP/1.1 200 ")
    until_quiet(gateway)
    before = descriptors(gateway)
    yield
    until_quiet(gateway)
    wait_until(lambda: descriptors(gateway) <= before)
    assert Talk(gateway).shaken().ask().startswith(b"HTTP/1.1 200 ")
    assert_nothing_raised(gateway)


def descriptors(gateway: Gateway) -> int:
    (pid,) = gateway.serving()
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident(gateway: Gateway) -> int:
    (pid,) = gateway.serving()
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def failed(gateway: Gateway) -> float:
    return counter(gateway, "tls_handshakes_failed_total")


@functools.cache
def context_of(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    context.minimum_version = context.maximum_version = version
    return context


class Talk:
    """A client whose every byte the test has in hand: OpenSSL works on memory, the socket is the test's."""

    def __init__(self, gateway: Gateway, listener: str = "web", version: ssl.TLSVersion = VERSIONS[-1]) -> None:
        host, _, port = gateway.address(listener).rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context_of(version).wrap_bio(self._in, self._out, server_hostname="web.test")

    def __enter__(self) -> "Talk":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def flight(self) -> bytes:
        """What the client says next."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
        return self._out.read()

    def answered(self) -> bytes:
        """What it says once it has read what came for it, which is at least one whole flight."""
        while True:
            self._in.write(self.received())
            if said := self.flight():
                return said

    def received(self) -> bytes:
        got = self.socket.recv(65536)
        assert got, "the gateway has closed"
        return got

    def shaken(self) -> "Talk":
        self.socket.sendall(self.flight())
        self.socket.sendall(self.answered())
        while True:
            try:
                self._tls.do_handshake()
                return self
            except ssl.SSLWantReadError:
                self._in.write(self.received())

    def sealed(self, content: bytes) -> bytes:
        self._tls.write(content)
        return self._out.read()

    def ask(self) -> bytes:
        """One exchange, after which the client closes."""
        self.socket.sendall(self.sealed(GET))
        while True:
            try:
                got = self._tls.read(65536)
                self.socket.close()
                return got
            except ssl.SSLWantReadError:
                self._in.write(self.received())

    def rest(self) -> bytes:
        """Everything that still comes, to the end of the connection."""
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := self.socket.recv(65536):
                got += piece
        return got

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def record(kind: int, content: bytes, *, version: int = 0x0303, length: int | None = None) -> bytes:
    return struct.pack("!BHH", kind, version, len(content) if length is None else length) + content


def alert_in(raw: bytes) -> int:
    """The alert in the clear that these bytes end with."""
    assert len(raw) >= 7 and raw[-7] == 21 and raw[-2] == FATAL, raw
    return raw[-1]


# ends at every step

STEPS = ["nothing", "part of a header", "part of a hello", "a hello", "part of the last flight", "the last flight"]


def say(talk: Talk, step: str) -> None:
    """As much of a handshake as the step names."""
    if step == "nothing":
        return
    hello = talk.flight()
    if step == "part of a header":
        talk.socket.sendall(hello[:3])
    elif step == "part of a hello":
        talk.socket.sendall(hello[: len(hello) // 2])
    else:
        talk.socket.sendall(hello)
    if step in ("part of the last flight", "the last flight"):
        said = talk.answered()
        talk.socket.sendall(said if step == "the last flight" else said[: len(said) // 2])


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
@pytest.mark.parametrize("how", ["close", "half", "reset"])
def test_a_client_may_go_at_every_step(gateway: Gateway, how: str, version: ssl.TLSVersion) -> None:
    for step in STEPS:
        before, served = failed(gateway), counter(gateway, "tls_handshakes_total")
        with Talk(gateway, version=version) as talk:
            say(talk, step)
            if how == "half":
                talk.socket.shutdown(socket.SHUT_WR)
                talk.rest()
            elif how == "reset":
                talk.reset()
        until_quiet(gateway)
        if step == "the last flight" and how != "reset":
            assert counter(gateway, "tls_handshakes_total") == served + 1
        elif step == "nothing":
            assert failed(gateway) == before, "a connection without a word, as health checks open them, is none"
        elif step != "the last flight":
            # a reset may be there before what was sent: then nothing had begun
            assert failed(gateway) == before + 1 or how == "reset", step


@pytest.mark.parametrize("asks", [False, True])
def test_an_end_may_come_with_the_last_flight(gateway: Gateway, asks: bool) -> None:
    """Finished, a request and FIN in one piece: the end is seen, and not only when the connection has idled for a minute."""
    with Talk(gateway) as talk:
        talk.socket.sendall(talk.flight())
        piece = talk.answered()
        if asks:
            piece += talk.sealed(GET)
        talk.socket.sendall(piece)
        talk.socket.shutdown(socket.SHUT_WR)
        wait_until(lambda: counter(gateway, "downstream_connections_active") == 0)


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_an_alert_may_come_at_every_step(gateway: Gateway, version: ssl.TLSVersion) -> None:
    for step in ("nothing", "a hello", "the gateway's flight"):
        before = failed(gateway)
        with Talk(gateway, version=version) as talk:
            if step != "nothing":
                say(talk, "a hello")
            if step == "the gateway's flight":
                talk.received()
            talk.socket.sendall(record(21, bytes([FATAL, HANDSHAKE_FAILURE])))
            talk.rest()
        wait_until(lambda before=before: failed(gateway) == before + 1)


# records


def test_records_that_are_too_long_are_refused(gateway: Gateway) -> None:
    """16 KiB and one byte in the clear, and 256 more than that where they are sealed (RFC 8446 §5.1, §5.2)."""
    before = failed(gateway)
    with Talk(gateway) as talk:
        talk.socket.sendall(record(22, b"\x01" + bytes(2000), version=0x0301, length=(1 << 14) + 1))
        assert alert_in(talk.rest()) == 22
    assert failed(gateway) == before + 1
    for version, most in zip(VERSIONS, ((1 << 14) + 2048, (1 << 14) + 256), strict=True):
        with Talk(gateway, version=version).shaken() as talk:
            talk.socket.sendall(record(23, bytes(most + 1)))
            talk.rest()


def test_empty_records_are_no_way_in(gateway: Gateway) -> None:
    with Talk(gateway) as talk:
        talk.socket.sendall(record(22, b"", version=0x0301) * 3)
        assert alert_in(talk.rest()) in (10, 50)
    for version in VERSIONS:
        with Talk(gateway, version=version) as talk:
            talk.socket.sendall(talk.flight())
            talk.received()
            talk.socket.sendall(record(22, b"") * 100)
            talk.rest()
        with Talk(gateway, version=version).shaken() as talk:
            talk.socket.sendall(record(23, b"") * 100)
            talk.rest()


def test_records_that_nobody_sealed_end_the_connection(gateway: Gateway) -> None:
    for version in VERSIONS:
        for kind in (20, 21, 22, 23, 24, 99):
            with Talk(gateway, version=version).shaken() as talk:
                talk.socket.sendall(record(kind, b"\x01\x00" if kind == 20 else os.urandom(64)))
                talk.socket.shutdown(socket.SHUT_WR)
                talk.rest()


def test_random_bytes_are_refused(gateway: Gateway) -> None:
    dice = random.Random(3)
    for length in (1, 4, 5, 6, 50, 700, 20_000):
        with Talk(gateway) as talk:
            with contextlib.suppress(ConnectionError):
                talk.socket.sendall(dice.randbytes(length))
                talk.socket.shutdown(socket.SHUT_WR)
            talk.rest()
    hello = bytearray(real_hello("web.test"))
    for _ in range(100):
        spoiled = bytearray(hello)
        for _ in range(dice.randrange(1, 4)):
            spoiled[dice.randrange(len(spoiled))] = dice.randrange(256)
        with Talk(gateway) as talk:
            talk.socket.sendall(spoiled)
            talk.socket.shutdown(socket.SHUT_WR)
            talk.rest()


def test_the_last_flight_may_be_garbage(gateway: Gateway) -> None:
    for version in VERSIONS:
        before = failed(gateway)
        with Talk(gateway, version=version) as talk:
            talk.socket.sendall(talk.flight())
            said = bytearray(talk.answered())
            said[-1] ^= 1
            talk.socket.sendall(said)
            talk.rest()
        wait_until(lambda before=before: failed(gateway) == before + 1)


def test_a_request_in_the_clear_is_told_so(gateway: Gateway) -> None:
    before = counter(gateway, "tls_plain_requests_total")
    status, fields, body = request(gateway.address("web"), headers={"Host": "web.test"})
    assert status == 400 and b"https://" in body and fields["content-type"] == "text/plain"
    assert counter(gateway, "tls_plain_requests_total") == before + 1


# silence


def test_five_hundred_stalled_handshakes_cost_little_and_end(gateway: Gateway) -> None:
    """Half of them in the middle of a hello, the others before their last flight; meanwhile others are served."""
    late = counter(gateway, "downstream_head_timeouts_total")
    before, start = failed(gateway), resident(gateway)
    with contextlib.ExitStack() as stack:
        talks = []
        for number in range(500):
            talks.append(stack.enter_context(Talk(gateway, "brief")))
            hello = talks[-1].flight()
            talks[-1].socket.sendall(hello[:40] if number % 2 else hello)
        assert Talk(gateway).shaken().ask().startswith(b"HTTP/1.1 200 ")
        grown = resident(gateway) - start
        assert grown < 500 * 100 * 1024, f"{grown / 500 / 1024:.0f} KiB for each"
        for talk in talks:
            talk.rest()
    wait_until(lambda: failed(gateway) == before + 500)
    assert counter(gateway, "downstream_head_timeouts_total") == late + 500
    print(f"{grown / 500 / 1024:.1f} KiB for each stalled handshake")
