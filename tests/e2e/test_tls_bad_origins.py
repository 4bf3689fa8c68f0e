"""Endpoints that misbehave at every step of a handshake: 502 or 503, a counter, nothing that stays behind and no exception."""

import contextlib
import os
import ssl
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from faulty import Origin, Wire, get
from gateway_process import Gateway
from pki import Authority, write_pair
from tls_peers import assert_nothing_raised, counter, records_of
from until import wait_until

AUTHORITY = Authority()
CONFIG = """\
accessLog: {{format: json, path: stdout}}
listeners:
  - {{name: web, address: "127.0.0.1:0"}}
routes:
  - {{name: all, rules: [{{backendRefs: [{{name: site}}]}}]}}
clusters:
  - name: site
    endpoints: ["127.0.0.1:{port}"]
    connectTimeout: 1s
    outlierDetection: {{consecutiveErrors: 0}}
    tls: {{serverName: site.test, ca: tls/ca.crt}}
"""
FATAL = 2


def record(kind: int, content: bytes, length: int | None = None) -> bytes:
    return struct.pack("!BHH", kind, 0x0303, len(content) if length is None else length) + content


class Handshake:
    """The origin's side of a handshake, flight by flight."""

    def __init__(self, wire: Wire, context: ssl.SSLContext) -> None:
        self._wire = wire
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_side=True)

    def flight(self) -> bytes:
        """What the origin says once it has read enough of what the gateway says."""
        while True:
            self.read()
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
            if said := self._out.read():
                return said

    def said(self) -> bytes:
        return self._out.read()

    def read(self) -> None:
        got = self._wire.receive()
        if not got:
            raise ConnectionError("the gateway has closed")
        self._in.write(got)

    def finish(self) -> None:
        is_done = False
        while not is_done:
            try:
                self.tls.do_handshake()
                is_done = True
            except ssl.SSLWantReadError:
                pass
            self._wire.send(self._out.read())
            if not is_done:
                self.read()


Fault = Callable[[Wire, Handshake], None]


def nothing(wire: Wire, shake: Handshake) -> None:
    """Closes at once."""


def reset_at_once(wire: Wire, shake: Handshake) -> None:
    wire.reset()


def silence(wire: Wire, shake: Handshake) -> None:
    while wire.receive():
        pass


def close_after_hello(wire: Wire, shake: Handshake) -> None:
    wire.receive()


def reset_after_hello(wire: Wire, shake: Handshake) -> None:
    wire.receive()
    wire.reset()


def clear_text(wire: Wire, shake: Handshake) -> None:
    wire.receive()
    wire.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def garbage(wire: Wire, shake: Handshake) -> None:
    wire.send(os.urandom(5000))
    wire.half_close()
    silence(wire, shake)


def alert(wire: Wire, shake: Handshake) -> None:
    wire.receive()
    wire.send(record(21, bytes([FATAL, 40])))
    silence(wire, shake)


def empty_records(wire: Wire, shake: Handshake) -> None:
    wire.receive()
    wire.send(record(22, b"") * 100)
    silence(wire, shake)


def long_record(wire: Wire, shake: Handshake) -> None:
    wire.receive()
    wire.send(record(22, b"\x02" + bytes(2000), length=(1 << 14) + 1 + 2048))
    silence(wire, shake)


def half_a_flight(wire: Wire, shake: Handshake) -> None:
    said = shake.flight()
    wire.send(said[: len(said) // 2])


def half_a_flight_and_silence(wire: Wire, shake: Handshake) -> None:
    half_a_flight(wire, shake)
    silence(wire, shake)


def spoiled_flight(wire: Wire, shake: Handshake) -> None:
    said = bytearray(shake.flight())
    said[-1] ^= 1
    wire.send(bytes(said))
    silence(wire, shake)


def close_after_flight(wire: Wire, shake: Handshake) -> None:
    wire.send(shake.flight())
    wire.half_close()


def close_after_handshake(wire: Wire, shake: Handshake) -> None:
    wire.send(shake.flight())
    shake.finish()


def garbage_after_handshake(wire: Wire, shake: Handshake) -> None:
    wire.send(shake.flight())
    shake.finish()
    wire.send(record(23, os.urandom(100)))
    silence(wire, shake)


def long_record_after_handshake(wire: Wire, shake: Handshake) -> None:
    wire.send(shake.flight())
    shake.finish()
    wire.send(record(23, bytes((1 << 14) + 257 + 2048)))
    silence(wire, shake)


SHAKEN = (close_after_flight, close_after_handshake, garbage_after_handshake, long_record_after_handshake)
FAULTS: list[Fault] = [
    nothing, reset_at_once, silence, close_after_hello, reset_after_hello, clear_text, garbage, alert, empty_records, long_record,
    half_a_flight, half_a_flight_and_silence, spoiled_flight, *SHAKEN,
]  # fmt: skip


@dataclass
class House:
    gateway: Gateway
    fault: Fault
    version: ssl.TLSVersion


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    home = tmp_path_factory.mktemp("bad-origins")
    write_pair(home / "tls", "site", AUTHORITY.issue("site.test"))
    (home / "tls" / "ca.crt").write_bytes(AUTHORITY.pem)
    contexts = {}
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        contexts[version] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        contexts[version].load_cert_chain(home / "tls" / "site.crt", home / "tls" / "site.key")
        contexts[version].maximum_version = version

    def script(origin: Origin, wire: Wire) -> None:
        made.fault(wire, Handshake(wire, contexts[made.version]))

    with Origin(script) as origin, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISTHMUS_CORE_DUMPS", "1")
        (home / "gateway.yaml").write_text(CONFIG.format(port=origin.port))
        with Gateway(home / "gateway.yaml", workers=1) as gateway:
            made = House(gateway, nothing, ssl.TLSVersion.TLSv1_3)
            yield made
            assert_nothing_raised(gateway)


def descriptors(gateway: Gateway) -> int:
    (pid,) = gateway.serving()
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_an_endpoint_may_fail_at_every_step(house: House, fault: Fault, version: str) -> None:
    gateway = house.gateway
    house.fault, house.version = fault, ssl.TLSVersion[version]
    before, seen = descriptors(gateway), len(gateway.stdout.splitlines())
    failed = counter(gateway, "upstream_tls_handshakes_failed_total")
    port = int(gateway.address().rpartition(":")[2])
    answer = get(port)
    assert answer.status in (502, 503)
    assert not any(word in answer.body.lower() for word in (b"tls", b"handshake", b"certificate", b"alert", b"ssl"))
    row = records_of(gateway, seen + 1)[-1]
    assert row["status"] == answer.status and row["detail"] not in ("", "-")
    if fault not in SHAKEN:
        assert row["flags"] == "UF", row
        # An endpoint that says nothing more is told apart from one to which no connection came up.
        assert (row["detail"] == "tls_handshake_timeout") == (fault in (silence, half_a_flight_and_silence))
        if fault is not reset_at_once:
            # Such a reset may come before the connection counts as up, and then no handshake has begun.
            wait_until(lambda: counter(gateway, "upstream_tls_handshakes_failed_total") > failed)
    wait_until(lambda: descriptors(gateway) <= before)
    wait_until(lambda: counter(gateway, "downstream_connections_active") == 0)


def test_the_faults_are_real(house: House) -> None:
    """The same script without a fault is served, so that it is the faults that fail."""

    def serve(wire: Wire, shake: Handshake) -> None:
        wire.send(shake.flight())
        shake.finish()
        while True:
            try:
                shake.tls.read(65536)
                break
            except ssl.SSLWantReadError:
                shake.read()
        shake.tls.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        wire.send(shake.said())

    house.fault = serve
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        house.version = version
        assert get(int(house.gateway.address().rpartition(":")[2])).body == b"ok"
