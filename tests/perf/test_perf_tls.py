"""TLS in the benchmark: one certificate for all, terms that the clients decide, handshakes that are counted when they are whole."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from perf.cells import TRAFFIC
from perf.gateways import Gateway, fetch
from perf.load import Load, shakes
from perf.machine import find_tool
from perf.tls import CIPHER, WANTED, agree, client_environment, make_certificate, parse_terms
from perf.traffic import command, tools_of
from perf.upload_origin import content_length

OLD = """Peer signing digest: SHA256
Peer signature type: ECDSA
Server Temp Key: X25519, 253 bits
New, TLSv1.3, Cipher is TLS_AES_128_GCM_SHA256
Server public key is 256 bit
"""
NEW = """Peer signature type: ecdsa_secp256r1_sha256
Negotiated TLS1.3 group: x25519
New, TLSv1.3, Cipher is TLS_AES_128_GCM_SHA256
Server public key is 256 bit
"""


NO_CHILD = cast("subprocess.Popen[str]", None)  # a gateway that is a server of the test's own


def answer_http(sock: ssl.SSLSocket) -> None:
    while sock.recv(65536):
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def wait_for_end(sock: ssl.SSLSocket) -> None:
    """As a gateway does: the client's close_notify is answered with one."""
    if not sock.recv(1):
        sock.unwrap()


@contextmanager
def server(run: Path, talk: Callable[[ssl.SSLSocket], None], **how: str) -> Iterator[tuple[int, list[object]]]:
    """A TLS server in threads with the certificate of the bench: its port, and the cipher of every handshake that it completed."""
    make_certificate(run)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(run / "tls.pem")
    if "group" in how:
        context.set_ecdh_curve(how["group"])
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    shaken: list[object] = []

    def serve(plain: socket.socket) -> None:
        with plain, suppress(OSError), context.wrap_socket(plain, server_side=True) as sock:
            shaken.append(sock.cipher())
            talk(sock)

    def accept() -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            plain.settimeout(10)
            threading.Thread(target=serve, args=(plain,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1], shaken
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(5)


def shake(run: Path, port: int) -> Load:
    sent = shakes(port, seconds=0.3, connections=3, env=client_environment(run))
    done = subprocess.run(sent.argv, env=sent.env, capture_output=True, text=True, timeout=30, check=True)
    return sent.parse(done.stdout)


def test_terms_as_older_and_newer_openssl_tell_them() -> None:
    assert parse_terms(OLD) == parse_terms(NEW) == WANTED
    assert str(WANTED) == "TLSv1.3, TLS_AES_128_GCM_SHA256, X25519, ECDSA 256 bits"
    with pytest.raises(ValueError, match="no handshake"):
        parse_terms("connect:errno=111")
    with pytest.raises(ValueError, match="no handshake"):
        parse_terms(OLD.replace("TLSv1.3, Cipher is TLS_AES_128_GCM_SHA256", "(NONE), Cipher is (NONE)"))


def test_the_certificate_is_made_once_and_is_good_for_its_name(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    first = (tmp_path / "tls.pem").read_bytes()
    make_certificate(tmp_path)
    assert (tmp_path / "tls.pem").read_bytes() == first == (tmp_path / "tls.crt").read_bytes() + (tmp_path / "tls.key").read_bytes()
    with server(tmp_path, answer_http) as (port, _):
        assert fetch(port, trusted=tmp_path / "tls.crt") == (200, 2)
        other = tmp_path / "other"
        other.mkdir()
        make_certificate(other)
        with pytest.raises(ssl.SSLCertVerificationError):
            fetch(port, trusted=other / "tls.crt")


@pytest.mark.skipif(find_tool("openssl") is None, reason="openssl is missing")
def test_the_clients_decide_the_terms(tmp_path: Path) -> None:
    """The server would rather have AES-256; it is not offered. A group that nobody offers ends in no handshake."""
    with server(tmp_path, answer_http) as (port, shaken):
        assert agree(tmp_path, port) == WANTED
        assert shaken[0] == (CIPHER, "TLSv1.3", 128)
    with server(tmp_path, answer_http, group="secp384r1") as (port, _), pytest.raises(ValueError, match="no handshake"):
        agree(tmp_path, port)


def test_whole_handshakes_are_counted(tmp_path: Path) -> None:
    with server(tmp_path, wait_for_end) as (port, shaken):
        load = shake(tmp_path, port)
    assert load.done > 0 and load.errors == 0
    assert len(shaken) == load.done
    assert 0 < load.p50_us <= load.p99_us <= load.max_us
    assert set(shaken) == {(CIPHER, "TLSv1.3", 128)}


def test_an_end_without_close_notify_is_an_end(tmp_path: Path) -> None:
    with server(tmp_path, lambda sock: sock.recv(1) and None) as (port, _):
        load = shake(tmp_path, port)
    assert load.done > 0 and load.errors == 0


def test_a_server_that_breaks_handshakes_has_made_none(tmp_path: Path) -> None:
    def talk(sock: ssl.SSLSocket) -> None:
        raise AssertionError("no handshake can have come about")

    with server(tmp_path, talk, group="secp384r1") as (port, shaken):
        load = shake(tmp_path, port)
    assert load.done == 0 and load.failed > 0 and not shaken


def test_a_refused_port_ends_in_failures(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    load = shake(tmp_path, port)
    assert load.done == 0 and load.failed > 0


def test_each_cell_in_tls_has_a_generator_that_speaks_it(tmp_path: Path) -> None:
    gateway = Gateway("nginx", 1080, 1443, 1999, NO_CHILD)
    wanted = {"tls40": ("openssl", "wrk"), "tls10k": ("openssl", "wrk"), "tlshake": ("openssl",), "tlsput1m": ("openssl", "h2load")}
    assert {key: tools_of(cell) for key, cell in TRAFFIC.items() if cell.tls and not cell.streams} == wanted
    for key, tools in wanted.items():
        if any(find_tool(tool) is None for tool in tools):
            continue
        sent = command(TRAFFIC[key], gateway, tmp_path, 2)
        text = " ".join(sent.argv)
        assert "1443" in text and "1080" not in text
        # the offer is in the environment, or among the options
        assert CIPHER in text or (sent.env is not None and CIPHER in Path(sent.env["OPENSSL_CONF"]).read_text())
    assert "1443" not in " ".join(command(TRAFFIC["get40"], gateway, tmp_path, 2).argv)


@pytest.mark.skipif(find_tool("h2load") is None, reason="h2load is missing")
def test_an_upload_arrives_whole(tmp_path: Path) -> None:
    received: list[int] = []

    def talk(sock: ssl.SSLSocket) -> None:
        while True:
            got = b""
            while b"\r\n\r\n" not in got:
                piece = sock.recv(65536)
                if not piece:
                    return
                got += piece
            head, _, content = got.partition(b"\r\n\r\n")
            n = len(content)
            while n < content_length(head):
                piece = sock.recv(65536)
                if not piece:
                    return
                n += len(piece)
            received.append(n)
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with server(tmp_path, talk) as (port, shaken):
        cell = replace(TRAFFIC["tlsput1m"], upload=100_000)
        sent = command(cell, Gateway("nginx", 0, port, 0, NO_CHILD), tmp_path, 1, connections=2)
        done = subprocess.run(sent.argv, capture_output=True, text=True, timeout=30, check=True)
        load = sent.parse(done.stdout)
    assert load.done > 0 and load.errors == 0
    assert set(received) == {100_000} and load.done <= len(received) <= load.done + 2
    assert set(shaken) == {(CIPHER, "TLSv1.3", 128)}
