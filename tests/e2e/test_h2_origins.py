"""Origins over HTTP/2 and TLS: `protocol: auto` goes by ALPN, origins change their minds, a connection carries many requests."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty import Origin, Wire
from gateway_process import Gateway, request
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, RequestReceived, StreamEnded
from pki import Authority, write_pair
from until import wait_until

TEXT = """\
accessLog: {{format: off}}
listeners: [{{name: web, address: "127.0.0.1:0"}}]
routes:
  - {{name: auto, hostnames: [auto.test], rules: [{{backendRefs: [{{name: auto}}]}}]}}
  - {{name: two, hostnames: [two.test], rules: [{{backendRefs: [{{name: two}}]}}]}}
  - {{name: one, hostnames: [one.test], rules: [{{backendRefs: [{{name: one}}]}}]}}
clusters:
  - {{name: auto, protocol: auto, endpoints: [{endpoints}], {tls}}}
  - {{name: two, protocol: HTTP2, endpoints: [{endpoints}], {tls}}}
  - {{name: one, protocol: HTTP1, endpoints: [{endpoints}], {tls}}}
"""
TLS = "outlierDetection: {consecutiveErrors: 0}, tls: {serverName: site.test, ca: ca.pem}"


class AlpnOrigin(Origin):
    """Speaks TLS and what the handshake chose; `spoken` has the protocol of every request. `only` may be changed while it runs."""

    def __init__(self, context: ssl.SSLContext, only: str) -> None:
        super().__init__(self.speak)
        self.context, self.spoken = context, list[str]()
        self.choose(only)
        self.gate = threading.Event()
        self.gate.set()
        self.most = 0

    def choose(self, only: str) -> None:
        self.context.set_alpn_protocols([only])

    def cut(self) -> None:
        """Ends every connection."""
        for wire in list(self._open):
            with contextlib.suppress(OSError):
                wire.sock.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: not self._open)

    def speak(self, origin: Origin, wire: Wire) -> None:
        with self.context.wrap_socket(wire.sock, server_side=True) as sock:
            wire.sock = sock
            if sock.selected_alpn_protocol() == "h2":
                self.speak_h2(sock)
            else:
                while (asked := wire.request()) is not None:
                    self.spoken.append("http/1.1")
                    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    self.requests.append(asked)

    def speak_h2(self, sock: ssl.SSLSocket) -> None:
        h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        h2.initiate_connection()
        sock.sendall(h2.data_to_send())
        waiting: list[int] = []
        while got := sock.recv(65536):
            for event in h2.receive_data(got):
                if isinstance(event, RequestReceived):
                    self.spoken.append("h2")
                elif isinstance(event, StreamEnded):
                    waiting.append(event.stream_id)
                    self.most = max(self.most, len(waiting))
                elif isinstance(event, ConnectionTerminated):
                    return
            while waiting and self.gate.is_set():
                stream = waiting.pop()
                h2.send_headers(stream, [(":status", "200"), ("content-length", "2")])
                h2.send_data(stream, b"ok", end_stream=True)
            sock.sendall(h2.data_to_send())


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def place(tmp_path: Path, authority: Authority) -> Path:
    write_pair(tmp_path, "site", authority.issue("site.test"))
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    return tmp_path


def context(place: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(place / "site.crt", place / "site.key")
    return made


@contextlib.contextmanager
def serving(place: Path, *origins: AlpnOrigin) -> Iterator[Gateway]:
    endpoints = ", ".join(f'"127.0.0.1:{origin.port}"' for origin in origins)
    (place / "gateway.yaml").write_text(TEXT.format(endpoints=endpoints, tls=TLS))
    with Gateway(place / "gateway.yaml", workers=1) as gateway:
        yield gateway


def ask(gateway: Gateway, name: str) -> int:
    return request(gateway.address(), headers={"Host": f"{name}.test"})[0]


@pytest.mark.parametrize("only", ["h2", "http/1.1"])
def test_auto_speaks_what_the_handshake_chose(place: Path, only: str) -> None:
    with AlpnOrigin(context(place), only) as origin, serving(place, origin) as gateway:
        assert [ask(gateway, "auto") for _ in range(5)] == [200] * 5
        assert origin.spoken == [only] * 5 and origin.accepted == 1


def test_each_endpoint_of_auto_has_its_own(place: Path) -> None:
    two, one = AlpnOrigin(context(place), "h2"), AlpnOrigin(context(place), "http/1.1")
    with two, one, serving(place, two, one) as gateway:
        assert [ask(gateway, "auto") for _ in range(20)] == [200] * 20
        assert set(two.spoken) == {"h2"} and set(one.spoken) == {"http/1.1"}
        assert len(two.spoken) + len(one.spoken) == 20


@pytest.mark.parametrize("first", ["h2", "http/1.1"])
def test_an_origin_that_changes_its_mind_is_followed(place: Path, first: str) -> None:
    then = "http/1.1" if first == "h2" else "h2"
    with AlpnOrigin(context(place), first) as origin, serving(place, origin) as gateway:
        assert [ask(gateway, "auto") for _ in range(3)] == [200] * 3
        origin.choose(then)
        origin.cut()
        assert [ask(gateway, "auto") for _ in range(5)] == [200] * 5
        assert origin.spoken == [first] * 3 + [then] * 5


def test_many_requests_share_a_connection(place: Path) -> None:
    with AlpnOrigin(context(place), "h2") as origin, serving(place, origin) as gateway:
        assert ask(gateway, "two") == 200
        origin.gate.clear()
        answers: list[int] = []
        threads = [threading.Thread(target=lambda: answers.append(ask(gateway, "two"))) for _ in range(40)]
        for thread in threads:
            thread.start()
        wait_until(lambda: origin.most == 40)
        origin.gate.set()
        assert ask(gateway, "two") == 200
        for thread in threads:
            thread.join(30)
        assert answers == [200] * 40 and origin.accepted == 1


def test_a_cluster_of_http1_asks_for_nothing_else(place: Path) -> None:
    with AlpnOrigin(context(place), "h2") as origin:
        origin.context.set_alpn_protocols(["h2", "http/1.1"])
        with serving(place, origin) as gateway:
            assert ask(gateway, "one") == 200 and ask(gateway, "auto") == 200
            assert origin.spoken == ["http/1.1", "h2"]
