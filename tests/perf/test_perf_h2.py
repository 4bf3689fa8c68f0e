"""HTTP/2 in the benchmark: one request tells whether a gateway is fit for a cell, and h2load is asked for what the cell says."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived, StreamEnded
from h2.exceptions import ProtocolError

from perf.cells import TRAFFIC
from perf.gateways import Gateway
from perf.h2 import fetch_h2
from perf.machine import find_tool
from perf.tls import make_certificate
from perf.traffic import command, port_of, tools_of

NO_CHILD = cast("subprocess.Popen[str]", None)
Fields = list[tuple[str, str]]
Answer = Callable[[H2Connection, int], None]


def answer_40(connection: H2Connection, stream: int) -> None:
    connection.send_headers(stream, [(":status", "200")])
    connection.send_data(stream, b"x" * 40)
    connection.send_headers(stream, [("grpc-status", "0")], end_stream=True)


@contextmanager
def server(answer: Answer, certificate: Path | None = None, alpn: str = "h2") -> Iterator[tuple[int, list[Fields]]]:
    """An HTTP/2 server in a thread: its port, and the heads that it was sent."""
    listening = socket.create_server(("127.0.0.1", 0))
    heads: list[Fields] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if certificate:
        context.load_cert_chain(certificate)
        context.set_alpn_protocols([alpn])

    def serve(sock: socket.socket) -> None:
        connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        sock.sendall(connection.data_to_send())
        while came := sock.recv(65536):
            for event in connection.receive_data(came):
                if isinstance(event, RequestReceived):
                    heads.append(cast("Fields", list(event.headers)))
                elif isinstance(event, StreamEnded):
                    answer(connection, event.stream_id)
            sock.sendall(connection.data_to_send())

    def accept() -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            plain.settimeout(10)
            # a client that has gone away may still have sent something
            with plain, suppress(OSError, ProtocolError):
                if certificate:
                    with context.wrap_socket(plain, server_side=True) as sock:
                        serve(sock)
                else:
                    serve(plain)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1], heads
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(15)


def test_one_request_in_the_clear() -> None:
    cell = TRAFFIC["h2grpc"]
    with server(answer_40) as (port, heads):
        assert fetch_h2(port, cell.path, body=b"x" * cell.upload, fields=cell.fields) == (200, 40)
        assert fetch_h2(port, "/") == (200, 40)
    assert {(":method", "POST"), (":path", "/bench.Echo/Call"), ("te", "trailers")} <= set(heads[0])
    assert (":method", "GET") in heads[1] and (":scheme", "http") in heads[1]


def test_one_request_in_tls(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    with server(answer_40, tmp_path / "tls.pem") as (port, heads):
        assert fetch_h2(port, trusted=tmp_path / "tls.crt") == (200, 40)
    assert (":scheme", "https") in heads[0] and (":authority", "bench.test") in heads[0]


def test_tls_without_http2_is_no_http2(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    with server(answer_40, tmp_path / "tls.pem", "http/1.1") as (port, _), pytest.raises(ConnectionError, match="no HTTP/2"):
        fetch_h2(port, trusted=tmp_path / "tls.crt")


def test_a_reset_is_no_answer() -> None:
    for code, answer in (
        (2, lambda connection, stream: connection.reset_stream(stream, 2)),
        (11, lambda connection, stream: connection.close_connection(11)),
    ):
        with server(answer) as (port, _), pytest.raises(ConnectionError, match=f"ended with error {code}"):
            fetch_h2(port)


@pytest.mark.skipif(find_tool("h2load") is None, reason="h2load is missing")
def test_what_h2load_is_asked_for(tmp_path: Path) -> None:
    gateway = Gateway("isthmus", 1, 2, 3, NO_CHILD, h2c=4, h2s=5)
    assert [port_of(TRAFFIC[key], gateway) for key in ("get40", "tls40", "h2get40", "h2tls40")] == [1, 2, 4, 5]
    clear = list(command(TRAFFIC["h2get40"], gateway, tmp_path, 1.5).argv)
    assert {"-c8", "-m32", "1500ms", "--connect-to=127.0.0.1:4"} <= set(clear) and clear[-1] == "http://bench.test:4/"
    secret = list(command(TRAFFIC["h2tls40"], gateway, tmp_path, 1).argv)
    assert {"--npn-list=h2", "--groups=X25519"} <= set(secret) and secret[-1].startswith("https://bench.test:5/")
    call = list(command(TRAFFIC["h2grpc"], gateway, tmp_path, 1).argv)
    assert call[call.index("-d") + 1] == str(tmp_path / "upload-128") and "te: trailers" in call
    assert "--h1" in command(TRAFFIC["tlsput1m"], gateway, tmp_path, 1).argv
    assert [tools_of(TRAFFIC[key]) for key in ("h2get40", "h2tls40")] == [("h2load",), ("openssl", "h2load")]
