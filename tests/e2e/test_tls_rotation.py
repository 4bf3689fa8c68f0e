"""Ten thousand full handshakes while certificates change every 100 ms, beside connections that stay open through all of it."""

import contextlib
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import shakes
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from gateway_process import Gateway
from pki import Authority, leaf_of, write_pair
from quick_origin import CONTENT, QuickOrigin
from tls_peers import assert_nothing_raised, counter, until_quiet
from until import wait_until

AUTHORITY = Authority()
SHAKES = 10_000
CLIENTS = 2
STEP = 0.1
VERSIONS = 8
TEXT = """\
accessLog: {{format: off}}
listeners:
  - name: web
    address: 127.0.0.1:0
    protocol: HTTPS
    tls: {{certificates: [{{cert: secret/tls.crt, key: secret/tls.key}}]}}
routes:
  - {{name: r, rules: [{{backendRefs: [{{name: app}}]}}]}}
clusters:
  - {{name: app, endpoints: ["{origin}"]}}
"""


class Secret:
    """A mounted Secret: ..data is a link that moves from version to version in one step."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.prints = []
        for number in range(VERSIONS):
            leaf = AUTHORITY.issue("web.test")
            write_pair(directory / f"..v{number}", "tls", leaf)
            self.prints.append(leaf_of(leaf).fingerprint(hashes.SHA256()).hex())
        (directory / "..data").symlink_to("..v0")
        for name in ("tls.crt", "tls.key"):
            (directory / name).symlink_to(f"..data/{name}")
        self.swaps = 0

    def swap(self) -> None:
        self.swaps += 1
        (self._directory / "..next").symlink_to(f"..v{self.swaps % VERSIONS}")
        (self._directory / "..next").replace(self._directory / "..data")


@pytest.fixture
def secret(tmp_path: Path) -> Secret:
    return Secret(tmp_path / "secret")


@contextlib.contextmanager
def swapping(secret: Secret) -> Iterator[None]:
    """A swap every STEP seconds, until the block ends."""
    stop = threading.Event()

    def swap() -> None:
        while not stop.wait(STEP):
            secret.swap()

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def kept_open(address: str, n: int) -> list[ssl.SSLSocket]:
    context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    return [connected(address, context) for _ in range(n)]


def connected(address: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    host, _, port = address.rpartition(":")
    return context.wrap_socket(socket.create_connection((host, int(port)), timeout=60), server_hostname="web.test")


def ask(connection: ssl.SSLSocket) -> None:
    connection.sendall(b"GET / HTTP/1.1\r\nHost: web.test\r\n\r\n")
    got = b""
    while not got.endswith(CONTENT):
        piece = connection.recv(65536)
        assert piece, "an open connection was lost"
        got += piece
    assert got.startswith(b"HTTP/1.1 200 ")


@pytest.mark.slow
def test_no_handshake_fails_while_certificates_change(tmp_path: Path, secret: Secret) -> None:
    """Slow because 10,000 are what is asked for: some 12 s of CPU, nearly all of it the clients'."""
    config = tmp_path / "gateway.yaml"
    with QuickOrigin() as origin:
        config.write_text(TEXT.format(origin=origin.address))
        with Gateway(config, workers=2) as gateway, contextlib.ExitStack() as stack:
            address = gateway.address()
            old = [stack.enter_context(each) for each in kept_open(address, 20)]
            shown = old[0].getpeercert(binary_form=True)
            with swapping(secret):
                command = [sys.executable, shakes.__file__, address, str(SHAKES // CLIENTS)]
                clients = [
                    stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) for _ in range(CLIENTS)
                ]
                rounds = 0
                while any(client.poll() is None for client in clients):
                    for each in old:
                        ask(each)
                    rounds += 1
            reports = [json.loads(client.communicate()[0]) for client in clients]
            assert [report["failures"] for report in reports] == [[]] * CLIENTS
            assert sum(report["done"] for report in reports) == SHAKES
            seen = set().union(*(report["prints"] for report in reports))
            assert seen <= set(secret.prints) and len(seen) >= 3, "certificates that were there, and more than the first"
            # Each of the old connections has its first handshake still, and the last swap is what new ones are shown.
            for each in old:
                ask(each)
                assert each.getpeercert(binary_form=True) == shown
            last = secret.prints[secret.swaps % VERSIONS]
            wait_until(lambda: print_of(connected(address, ssl.create_default_context(cadata=AUTHORITY.pem.decode()))) == last)
            assert counter(gateway, "tls_handshakes_failed_total") == 0
            assert counter(gateway, "tls_handshakes_total") >= SHAKES + len(old)
            assert counter(gateway, "tls_handshakes_resumed_total") == 0
            assert gateway.ask("/config/problems")["problems"] == [] and gateway.revision == 1
            for each in old:
                each.close()
            until_quiet(gateway)
            assert_nothing_raised(gateway)


def print_of(connection: ssl.SSLSocket) -> str:
    with connection:
        der = connection.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).fingerprint(hashes.SHA256()).hex()
